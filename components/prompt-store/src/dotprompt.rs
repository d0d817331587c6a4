//! `.prompt` files: front matter in YAML, then the template.
//!
//! Source: dotprompt's reference implementation (`parseDocument`), whose reserved words and rules for extension fields
//! these are.

use crate::definition::{Body, Definition, Kind, Variable};
use crate::template::{Format, Inclusions};
use crate::{picoschema, schema, yaml};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use stockade_guest::{Error, Result};

/// A file's parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The front matter as it stands there; empty without any.
    pub front: Map<String, Value>,
    pub template: String,
}

/// Where a definition keeps extension fields, and the rest of the front matter that is nothing to it.
const EXTENSIONS: &str = "ext";
const REST: &str = "dotprompt";

pub fn parse(source: &str) -> Result<Document> {
    let source = source.replace("\r\n", "\n");
    let whole = || Document { front: Map::new(), template: source.clone() };
    // A licence header may stand before the front matter.
    let is_lead = |line: &str| line.trim().is_empty() || line.starts_with('#');
    let lead: usize = source.split_inclusive('\n').take_while(|line| is_lead(line)).map(str::len).sum();
    let Some(rest) =
        source[lead..].strip_prefix("---").and_then(|r| r.trim_start_matches([' ', '\t']).strip_prefix('\n'))
    else {
        return Ok(whole());
    };
    let mut end = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            let front = match yaml::read(&rest[..end])? {
                Value::Object(fields) => fields,
                Value::Null => Map::new(),
                _ => return Err(Error::Invalid("front matter: not a mapping".into())),
            };
            return Ok(Document { front, template: rest[end + line.len()..].trim().into() });
        }
        end += line.len();
    }
    Ok(whole())
}

/// Extension fields by their namespace: `a.b.c: 1` is `{"a.b": {"c": 1}}`.
pub fn extensions(front: &Map<String, Value>) -> Map<String, Value> {
    let mut all = Map::new();
    for (key, value) in front {
        if let Some((namespace, name)) = key.rsplit_once('.') {
            let fields = all.entry(namespace).or_insert_with(|| json!({}));
            fields[name] = value.clone();
        }
    }
    all
}

/// The JSON Schema of the front matter's `input` or `output`, which may be Picoschema.
pub fn schema_of(front: &Map<String, Value>, side: &str, named: &Map<String, Value>) -> Result<Option<Value>> {
    let schema = front.get(side).and_then(|s| s.get("schema"));
    schema.map(|s| picoschema::schema(s, named)).transpose().map_err(|e| Error::Invalid(format!("{side}: {e}")))
}

/// A file as a definition, and the name that it gives itself.
pub fn read(source: &str) -> Result<(Definition, Option<String>)> {
    let Document { mut front, template } = parse(source)?;
    let name = front.get("name").and_then(Value::as_str).map(str::to_string);
    let input = schema_of(&front, "input", &Map::new())?;
    if let Some(output) = schema_of(&front, "output", &Map::new())? {
        front["output"]["schema"] = output;
    }
    let defaults = front.get("input").and_then(|i| i.get("default")).and_then(Value::as_object).cloned();
    let defaults = defaults.unwrap_or_default();
    let is_strict = input.as_ref().is_some_and(|i| i["additionalProperties"] == Value::Bool(false));
    let variables = variables(input.as_ref(), &defaults)?;
    let mut model_config = match front.remove("config") {
        Some(Value::Object(fields)) => fields,
        None => Map::new(),
        Some(_) => return Err(Error::Invalid("config: not a mapping".into())),
    };
    if let Some(model) = front.remove("model") {
        model_config.insert("model".into(), model);
    }
    let description = front.remove("description").as_ref().and_then(Value::as_str).map(str::to_string);
    for known in ["name", "input"] {
        front.remove(known);
    }
    let mut metadata = Map::new();
    let extensions = extensions(&front);
    if !extensions.is_empty() {
        metadata.insert(EXTENSIONS.into(), Value::Object(extensions));
        front.retain(|key, _| !key.contains('.'));
    }
    if !front.is_empty() {
        metadata.insert(REST.into(), Value::Object(front));
    }
    let definition = Definition {
        format: Format::Dotprompt,
        template: Body::Text(template),
        variables,
        partials: BTreeMap::new(),
        inclusions: Inclusions::new(),
        strict: is_strict,
        model_config,
        description: description.unwrap_or_default(),
        tags: Vec::new(),
        metadata,
    };
    Ok((definition, name))
}

fn variables(input: Option<&Value>, defaults: &Map<String, Value>) -> Result<Vec<Variable>> {
    let Some(input) = input else {
        let default = |(name, value): (&String, &Value)| Variable {
            name: name.clone(),
            kind: Kind::Json,
            required: false,
            default: Some(value.clone()),
            schema: None,
            description: String::new(),
        };
        return Ok(defaults.iter().map(default).collect());
    };
    let Some(properties) = input.get("properties").and_then(Value::as_object) else {
        return Err(Error::Invalid("input: only an object's schema is served".into()));
    };
    if !matches!(input.get("additionalProperties"), None | Some(Value::Bool(_))) {
        return Err(Error::Invalid("input: a schema for all other variables is not served".into()));
    }
    let required = |name: &str| input["required"].as_array().is_some_and(|r| r.iter().any(|n| n == name));
    let variable = |(name, property): (&String, &Value)| {
        let ty = property["type"].as_str().or(property["type"][0].as_str());
        let kind = match ty {
            Some("string") => Kind::Text,
            Some("number" | "integer") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            Some("array") => Kind::List,
            _ => Kind::Json,
        };
        schema::validate(property).map_err(|e| Error::Invalid(format!("input `{name}`: {e}")))?;
        Ok(Variable {
            name: name.clone(),
            kind,
            required: required(name),
            default: defaults.get(name).cloned(),
            schema: Some(property.clone()),
            description: property["description"].as_str().unwrap_or_default().into(),
        })
    };
    properties.iter().map(variable).collect()
}

/// A definition as a file.
pub fn write(name: &str, definition: &Definition) -> Result<String> {
    let (Body::Text(template), Format::Dotprompt) = (&definition.template, definition.format) else {
        return Err(Error::Invalid("only a text template of the dotprompt format has a .prompt file".into()));
    };
    let mut front = Map::new();
    front.insert("name".into(), name.into());
    if !definition.description.is_empty() {
        front.insert("description".into(), definition.description.clone().into());
    }
    let mut config = definition.model_config.clone();
    front.extend(config.remove("model").map(|model| ("model".to_string(), model)));
    if !config.is_empty() {
        front.insert("config".into(), Value::Object(config));
    }
    if !definition.variables.is_empty() {
        front.insert("input".into(), input(definition));
    }
    if let Some(Value::Object(rest)) = definition.metadata.get(REST) {
        front.extend(rest.clone());
    }
    for (namespace, fields) in definition.metadata.get(EXTENSIONS).and_then(Value::as_object).into_iter().flatten() {
        for (name, value) in fields.as_object().into_iter().flatten() {
            front.insert(format!("{namespace}.{name}"), value.clone());
        }
    }
    // JSON is YAML.
    let lines: String =
        front.iter().map(|(name, value)| format!("{}: {value}\n", Value::from(name.as_str()))).collect();
    Ok(format!("---\n{lines}---\n{template}\n"))
}

fn input(definition: &Definition) -> Value {
    let (mut properties, mut required, mut defaults) = (Map::new(), Vec::new(), Map::new());
    for variable in &definition.variables {
        let schema = variable.schema.clone().unwrap_or_else(|| match variable.kind {
            Kind::Text | Kind::Image => json!({"type": "string"}),
            Kind::Number => json!({"type": "number"}),
            Kind::Boolean => json!({"type": "boolean"}),
            Kind::List | Kind::Messages => json!({"type": "array"}),
            Kind::Json => json!({}),
        });
        properties.insert(variable.name.clone(), schema);
        if variable.required {
            required.push(variable.name.clone());
        }
        defaults.extend(variable.default.clone().map(|d| (variable.name.clone(), d)));
    }
    let mut schema = json!({"type": "object", "properties": properties, "required": required});
    schema["additionalProperties"] = (!definition.strict).into();
    let mut input = json!({"schema": schema});
    if !defaults.is_empty() {
        input["default"] = Value::Object(defaults);
    }
    input
}

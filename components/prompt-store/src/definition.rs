//! What a version holds, as it is stored, written to files and digested. The API's own type is generated and has no
//! JSON.

use crate::template::{self, Format, Inclusions, Template};
use crate::variables;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use stockade_guest::prompt_store as api;
use stockade_guest::types::Role;
use stockade_guest::{Error, Result};

/// Most messages of a chat template.
const MAX_MESSAGES: usize = 256;
/// Most tags of a prompt, and bytes of one.
const MAX_TAGS: usize = 32;
const MAX_TAG_BYTES: usize = 100;
/// Most bytes of a definition with all that it includes; the state's limit of a value leaves room for the rest.
const MAX_BYTES: usize = 900 << 10;

/// Invariant: self-contained. What the template includes is part of it, so that nothing that happens to another prompt
/// changes this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub format: Format,
    pub template: Body,
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// What the template's names stand for: `PROMPT@VERSION`, a key of `inclusions`.
    #[serde(default)]
    pub partials: BTreeMap<String, String>,
    #[serde(default)]
    pub inclusions: Inclusions,
    #[serde(default)]
    pub strict: bool,
    #[serde(default)]
    pub model_config: Map<String, Value>,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    Text(String),
    Chat(Vec<Item>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ItemFields", into = "ItemFields")]
pub enum Item {
    Message { role: Speaker, content: String },
    Placeholder { placeholder: String },
}

/// `{"role", "content"}` or `{"placeholder"}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<Speaker>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    placeholder: Option<String>,
}

impl TryFrom<ItemFields> for Item {
    type Error = &'static str;
    fn try_from(fields: ItemFields) -> Result<Self, Self::Error> {
        match fields {
            ItemFields { role: Some(role), content: Some(content), placeholder: None } => {
                Ok(Self::Message { role, content })
            }
            ItemFields { role: None, content: None, placeholder: Some(placeholder) } => {
                Ok(Self::Placeholder { placeholder })
            }
            _ => Err("a message is `role` and `content`, or `placeholder` alone"),
        }
    }
}

impl From<Item> for ItemFields {
    fn from(item: Item) -> Self {
        match item {
            Item::Message { role, content } => Self { role: Some(role), content: Some(content), ..Self::default() },
            Item::Placeholder { placeholder } => Self { placeholder: Some(placeholder), ..Self::default() },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    pub name: String,
    pub kind: Kind,
    #[serde(default)]
    pub required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    #[serde(default)]
    pub description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Text,
    Number,
    Boolean,
    Json,
    List,
    Image,
    Messages,
}

impl Definition {
    /// Out of JSON and back. Invariant: the only ways, so that the generated code, which is most of a component's size
    /// and of the time to compile it, is there once.
    pub fn from_json(value: Value) -> Result<Self> {
        Ok(serde_json::from_value(value)?)
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Refuses what could never be rendered.
    pub fn validate(&self) -> Result<()> {
        if self.tags.len() > MAX_TAGS || self.tags.iter().any(|t| t.is_empty() || t.len() > MAX_TAG_BYTES) {
            return Err(Error::Invalid(format!("tags: at most {MAX_TAGS}, of 1 to {MAX_TAG_BYTES} bytes")));
        }
        variables::validate(&self.variables)?;
        let mut names: Vec<String> = Vec::new();
        for (place, text) in self.texts() {
            let template = self.parsed(&place, text)?;
            if let Some(missing) = template.includes.iter().find(|name| !self.partials.contains_key(*name)) {
                return Err(Error::Invalid(format!("{place}: `{missing}` includes nothing")));
            }
            names.extend(template.names);
        }
        for (key, inclusion) in &self.inclusions {
            names.extend(self.parsed(key, &inclusion.text)?.names);
        }
        for target in self.partials.values().chain(self.inclusions.values().flat_map(|i| i.partials.values())) {
            if !self.inclusions.contains_key(target) {
                return Err(Error::Invalid(format!("inclusion `{target}` is missing")));
            }
        }
        let placeholders = self.placeholders();
        if let Some(wrong) = placeholders.iter().find(|p| self.kind(p) != Some(Kind::Messages)) {
            return Err(Error::Invalid(format!("placeholder `{wrong}` has to be a variable of the kind `messages`")));
        }
        let undeclared = names.iter().find(|name| self.kind(name).is_none());
        if let (Format::Simple, true, Some(name)) = (self.format, self.strict, undeclared) {
            return Err(Error::Invalid(format!("variable `{name}` is used and not declared")));
        }
        if self.canonical().len() > MAX_BYTES {
            return Err(Error::TooLarge(format!("{MAX_BYTES} bytes a definition with all that it includes")));
        }
        Ok(())
    }

    /// All template texts with their places.
    pub fn texts(&self) -> Vec<(String, &str)> {
        match &self.template {
            Body::Text(text) => vec![("template".into(), text)],
            Body::Chat(items) => {
                let texts = items.iter().enumerate().filter_map(|(i, item)| match item {
                    Item::Message { content, .. } => Some((format!("template[{i}]"), content.as_str())),
                    Item::Placeholder { .. } => None,
                });
                texts.collect()
            }
        }
    }

    pub fn parsed(&self, place: &str, text: &str) -> Result<Template> {
        template::parse(self.format, text).map_err(|e| match e {
            Error::Invalid(reason) => Error::Invalid(format!("{place}: {reason}")),
            other => other,
        })
    }

    pub fn kind(&self, variable: &str) -> Option<Kind> {
        self.variables.iter().find(|v| v.name == variable).map(|v| v.kind)
    }

    fn placeholders(&self) -> Vec<&str> {
        match &self.template {
            Body::Text(_) => Vec::new(),
            Body::Chat(items) => {
                let names = items.iter().filter_map(|item| match item {
                    Item::Placeholder { placeholder } => Some(placeholder.as_str()),
                    Item::Message { .. } => None,
                });
                names.collect()
            }
        }
    }

    /// JSON with sorted keys: equal definitions have equal texts.
    pub fn canonical(&self) -> String {
        let value = self.to_json();
        let mut out = String::new();
        write_sorted(&value, &mut out);
        out
    }

    /// SHA-256 of [`Self::canonical`] in hexadecimal.
    pub fn digest(&self) -> String {
        Sha256::digest(self.canonical()).iter().map(|b| format!("{b:02x}")).collect()
    }

    /// As lines for people to compare.
    pub fn lines(&self) -> String {
        let mut lines = Vec::new();
        let mut settings = self.to_json();
        if let Value::Object(fields) = &mut settings {
            for (name, value) in std::mem::take(fields) {
                match (name.as_str(), value) {
                    ("template" | "inclusions", _) => {}
                    ("variables", Value::Array(variables)) => {
                        lines.extend(variables.iter().map(|v| format!("variable: {v}")));
                    }
                    (_, value) => lines.push(format!("{name}: {value}")),
                }
            }
        }
        match &self.template {
            Body::Text(text) => lines.push(text.clone()),
            Body::Chat(items) => {
                for item in items {
                    match item {
                        Item::Message { role, content } => {
                            lines.push(format!("--- {}", serde_json::to_value(role).unwrap_or_default()));
                            lines.push(content.clone());
                        }
                        Item::Placeholder { placeholder } => lines.push(format!("--- messages of `{placeholder}`")),
                    }
                }
            }
        }
        lines.join("\n")
    }
}

fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            for (i, (name, value)) in sorted.into_iter().enumerate() {
                out.push(if i == 0 { '{' } else { ',' });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_sorted(value, out);
            }
            out.push_str(if fields.is_empty() { "{}" } else { "}" });
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                write_sorted(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn json(what: &str, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::Invalid(format!("{what}: {e}")))
}

fn object(what: &str, text: &str) -> Result<Map<String, Value>> {
    match json(what, text)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::Invalid(format!("{what}: not a JSON object"))),
    }
}

impl TryFrom<api::Definition> for Definition {
    type Error = Error;
    /// Without its inclusions: `partials` says what the caller wants, as `PROMPT@VERSION`.
    fn try_from(from: api::Definition) -> Result<Self> {
        let variable = |v: api::Variable| {
            Ok(Variable {
                default: v.default.map(|d| json(&format!("variable `{}`: default", v.name), &d)).transpose()?,
                schema: v.schema.map(|s| json(&format!("variable `{}`: schema", v.name), &s)).transpose()?,
                kind: v.kind.into(),
                required: v.required,
                name: v.name,
                description: v.description,
            })
        };
        Ok(Self {
            format: from.format.into(),
            template: match from.template {
                api::Template::Text(text) => Body::Text(text),
                api::Template::Chat(items) if items.len() > MAX_MESSAGES => {
                    return Err(Error::TooLarge(format!("{MAX_MESSAGES} messages a template")));
                }
                api::Template::Chat(items) => Body::Chat(items.into_iter().map(Item::from).collect()),
            },
            variables: from.variables.into_iter().map(variable).collect::<Result<_>>()?,
            partials: from.partials.into_iter().map(|p| (p.name, format!("{}@{}", p.prompt, p.version))).collect(),
            inclusions: Inclusions::new(),
            strict: from.strict,
            model_config: object("model-config", &from.model_config)?,
            description: from.description,
            tags: from.tags,
            metadata: object("metadata", &from.metadata)?,
        })
    }
}

impl From<Definition> for api::Definition {
    fn from(from: Definition) -> Self {
        let variable = |v: Variable| api::Variable {
            name: v.name,
            kind: v.kind.into(),
            required: v.required,
            default: v.default.map(|d| d.to_string()),
            schema: v.schema.map(|s| s.to_string()),
            description: v.description,
        };
        let partial = |(name, target): (String, String)| {
            let (prompt, version) = target.rsplit_once('@')?;
            Some(api::Partial { name, prompt: prompt.into(), version: version.parse().ok()? })
        };
        Self {
            format: from.format.into(),
            template: match from.template {
                Body::Text(text) => api::Template::Text(text),
                Body::Chat(items) => api::Template::Chat(items.into_iter().map(api::ChatItem::from).collect()),
            },
            variables: from.variables.into_iter().map(variable).collect(),
            partials: from.partials.into_iter().filter_map(partial).collect(),
            strict: from.strict,
            model_config: Value::Object(from.model_config).to_string(),
            description: from.description,
            tags: from.tags,
            metadata: Value::Object(from.metadata).to_string(),
        }
    }
}

impl From<api::ChatItem> for Item {
    fn from(item: api::ChatItem) -> Self {
        match item {
            api::ChatItem::Message(m) => Self::Message { role: m.role.into(), content: m.content },
            api::ChatItem::Placeholder(placeholder) => Self::Placeholder { placeholder },
        }
    }
}

impl From<Item> for api::ChatItem {
    fn from(item: Item) -> Self {
        match item {
            Item::Message { role, content } => Self::Message(api::TemplateMessage { role: role.into(), content }),
            Item::Placeholder { placeholder } => Self::Placeholder(placeholder),
        }
    }
}

/// Two enums of the same cases, turned into each other.
macro_rules! same_cases {
    ($a:ty, $b:ty: $($case:ident)*) => {
        impl From<$a> for $b {
            fn from(value: $a) -> Self {
                match value { $(<$a>::$case => Self::$case,)* }
            }
        }
        impl From<$b> for $a {
            fn from(value: $b) -> Self {
                match value { $(<$b>::$case => Self::$case,)* }
            }
        }
    };
}
same_cases!(Speaker, Role: System User Assistant Tool);
same_cases!(Kind, api::VariableKind: Text Number Boolean Json List Image Messages);
same_cases!(Format, api::Format: Simple Mustache Dotprompt);

//! Variables: their kinds, defaults and schemas, and what a caller gives for them.

use crate::definition::{Definition, Kind, Variable};
use crate::messages;
use crate::schema;
use crate::template::is_name;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use stockade_guest::types::{Image, Message};
use stockade_guest::{Error, Result};

const MAX_VARIABLES: usize = 100;

pub fn validate(variables: &[Variable]) -> Result<()> {
    if variables.len() > MAX_VARIABLES {
        return Err(Error::TooLarge(format!("{MAX_VARIABLES} variables")));
    }
    let mut declared = BTreeSet::new();
    for variable in variables {
        let named = |reason: String| Error::Invalid(format!("variable `{}`: {reason}", variable.name));
        if !is_name(&variable.name) {
            return Err(named("1 to 64 of a-z, A-Z, 0-9, `_`, `-`".into()));
        }
        if !declared.insert(&*variable.name) {
            return Err(Error::Invalid(format!("variable `{}` is declared twice", variable.name)));
        }
        if let Some(schema) = &variable.schema {
            schema::validate(schema).map_err(|e| named(e.to_string()))?;
        }
        if let Some(default) = &variable.default {
            check(variable, default)?;
        }
    }
    Ok(())
}

/// What a caller has given, checked and with the defaults.
#[derive(Debug)]
pub struct Values {
    /// An object of all variables that have a value.
    pub all: Value,
    /// Names of those that are images.
    pub images: BTreeSet<String>,
    /// What was given with an `@` before its name.
    pub context: Map<String, Value>,
}

impl Values {
    /// The messages of a placeholder.
    pub fn messages(&self, name: &str) -> Result<Vec<Message>> {
        self.all.get(name).map_or(Ok(Vec::new()), |value| messages::read(name, value))
    }
}

pub fn bind(definition: &Definition, given: &str) -> Result<Values> {
    let given: Map<String, Value> =
        serde_json::from_str(given).map_err(|e| Error::Invalid(format!("variables: {e}")))?;
    let (mut all, mut context) = (Map::new(), Map::new());
    for (name, value) in given {
        if let Some(name) = name.strip_prefix('@') {
            context.insert(name.into(), value);
        } else if definition.strict && definition.kind(&name).is_none() {
            return Err(Error::Invalid(format!("variable `{name}` is unknown")));
        } else {
            all.insert(name, value);
        }
    }
    let mut images = BTreeSet::new();
    for variable in &definition.variables {
        let name = &variable.name;
        let absent = match all.get(name) {
            None => true,
            // An optional variable may be given as `null`.
            Some(Value::Null) => !variable.required && variable.kind != Kind::Json,
            Some(value) => {
                check(variable, value)?;
                false
            }
        };
        if absent {
            match &variable.default {
                Some(default) => drop(all.insert(name.clone(), default.clone())),
                None if variable.required && definition.strict => {
                    return Err(Error::Invalid(format!("variable `{name}` is missing")));
                }
                None => drop(all.remove(name)),
            }
        }
        if variable.kind == Kind::Image {
            images.insert(name.clone());
        }
    }
    Ok(Values { all: Value::Object(all), images, context })
}

fn check(variable: &Variable, value: &Value) -> Result<()> {
    let name = &variable.name;
    let (fits, kind) = match variable.kind {
        Kind::Text => (value.is_string(), "a text"),
        Kind::Number => (value.is_number(), "a number"),
        Kind::Boolean => (value.is_boolean(), "true or false"),
        Kind::Json => (true, "JSON"),
        Kind::List => (value.is_array(), "a list"),
        Kind::Image => (image(value).is_some(), "an image: media_type and data, or a data: URL"),
        Kind::Messages => {
            messages::read(name, value)?;
            (true, "messages")
        }
    };
    if !fits {
        return Err(Error::Invalid(format!("variable `{name}` has to be {kind}")));
    }
    if let Some(schema) = &variable.schema {
        let broken = |reason| Error::Invalid(format!("variable `{name}`{reason}"));
        schema::check(schema, value).map_err(broken)?;
    }
    Ok(())
}

/// `{"media_type", "data"}` or a `data:` URL.
pub fn image(value: &Value) -> Option<Image> {
    use base64::Engine as _;
    let (media_type, data) = match value {
        Value::String(url) => url.strip_prefix("data:")?.split_once(";base64,")?,
        value => (value.get("media_type")?.as_str()?, value.get("data")?.as_str()?),
    };
    let data = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    let is_type = media_type.starts_with("image/") && media_type.len() <= 100 && media_type.is_ascii();
    is_type.then(|| Image { media_type: media_type.into(), data })
}

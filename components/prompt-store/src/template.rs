//! Templates: `{{name}}` stands for a variable's value, `{{{{` is a literal `{{`. Values go in as they are, once:
//! what looks like a variable inside of a value stays text.

use serde_json::{Map, Value};
use std::collections::BTreeSet;
use stockade_guest::prompt_store::{Content, Definition, Template, Variable, VariableKind};
use stockade_guest::types::Message;
use stockade_guest::{Error, Result};

const MAX_VARIABLES: usize = 100;

/// A piece of a template.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Literal(&'a str),
    Variable(&'a str),
}

/// Refuses what could never be rendered, and variables that are declared without use or used without declaration.
pub fn validate(definition: &Definition) -> Result<()> {
    if definition.variables.len() > MAX_VARIABLES {
        return Err(Error::TooLarge(format!("{MAX_VARIABLES} variables")));
    }
    if !serde_json::from_str::<Value>(&definition.metadata).is_ok_and(|v| v.is_object()) {
        return Err(Error::Invalid("metadata: not a JSON object".into()));
    }
    let mut declared = BTreeSet::new();
    for variable in &definition.variables {
        if !is_name(&variable.name) {
            return Err(Error::Invalid(format!("variable `{}`: a-z, A-Z, 0-9, `_`", variable.name)));
        }
        if !declared.insert(&*variable.name) {
            return Err(Error::Invalid(format!("variable `{}` is declared twice", variable.name)));
        }
        if let Some(default) = &variable.default {
            let value = serde_json::from_str(default)
                .map_err(|e| Error::Invalid(format!("variable `{}`: default: {e}", variable.name)))?;
            text_of(variable, &value)?;
        }
    }
    let mut used = BTreeSet::new();
    for text in texts(&definition.template) {
        for piece in parse(text)? {
            if let Piece::Variable(name) = piece {
                used.insert(name);
            }
        }
    }
    if let Some(name) = used.difference(&declared).next() {
        return Err(Error::Invalid(format!("variable `{name}` is used and not declared")));
    }
    if let Some(name) = declared.difference(&used).next() {
        return Err(Error::Invalid(format!("variable `{name}` is declared and not used")));
    }
    Ok(())
}

/// Fills the variables in.
pub fn render(definition: &Definition, variables: &str) -> Result<Content> {
    let values: Map<String, Value> =
        serde_json::from_str(variables).map_err(|e| Error::Invalid(format!("variables: {e}")))?;
    if let Some(unknown) = values.keys().find(|k| definition.variables.iter().all(|v| v.name != **k)) {
        return Err(Error::Invalid(format!("variable `{unknown}` is unknown")));
    }
    let value = |name: &str| -> Result<String> {
        let variable = definition.variables.iter().find(|v| v.name == name);
        let variable = variable.ok_or_else(|| Error::Invalid(format!("variable `{name}` is not declared")))?;
        match (values.get(name), &variable.default) {
            (Some(value), _) => text_of(variable, value),
            (None, Some(default)) => text_of(variable, &serde_json::from_str(default)?),
            (None, None) if variable.required => Err(Error::Invalid(format!("variable `{name}` is missing"))),
            (None, None) => Ok(String::new()),
        }
    };
    // All of them, so that one that is wrong shows even where the template does not come to it.
    for variable in &definition.variables {
        value(&variable.name)?;
    }
    let fill = |text: &str| -> Result<String> {
        let mut out = String::with_capacity(text.len());
        for piece in parse(text)? {
            match piece {
                Piece::Literal(literal) => out.push_str(literal),
                Piece::Variable(name) => out.push_str(&value(name)?),
            }
        }
        Ok(out)
    };
    Ok(match &definition.template {
        Template::Text(text) => Content::Text(fill(text)?),
        Template::Chat(messages) => {
            let message =
                |m: &stockade_guest::prompt_store::TemplateMessage| Ok(Message::text(m.role, fill(&m.content)?));
            Content::Messages(messages.iter().map(message).collect::<Result<_>>()?)
        }
    })
}

/// A value as the template takes it; `invalid` when it is not of the variable's kind.
fn text_of(variable: &Variable, value: &Value) -> Result<String> {
    let (fits, kind) = match variable.kind {
        VariableKind::Text => (value.is_string(), "a text"),
        VariableKind::Number => (value.is_number(), "a number"),
        VariableKind::Boolean => (value.is_boolean(), "true or false"),
        VariableKind::Json => (true, "JSON"),
    };
    match value {
        _ if !fits => Err(Error::Invalid(format!("variable `{}` has to be {kind}", variable.name))),
        Value::String(text) if variable.kind == VariableKind::Text => Ok(text.clone()),
        other => Ok(other.to_string()),
    }
}

fn texts(template: &Template) -> Vec<&str> {
    match template {
        Template::Text(text) => vec![text],
        Template::Chat(messages) => messages.iter().map(|m| &*m.content).collect(),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn parse(text: &str) -> Result<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find("{{") {
        pieces.push(Piece::Literal(&rest[..open]));
        let inside = &rest[open + 2..];
        if let Some(after) = inside.strip_prefix("{{") {
            pieces.push(Piece::Literal("{{"));
            rest = after;
            continue;
        }
        let shown = || inside.chars().take(32).collect::<String>();
        let close = inside.find("}}").ok_or_else(|| Error::Invalid(format!("`{{{{{}` is not closed", shown())))?;
        let name = inside[..close].trim();
        if !is_name(name) {
            return Err(Error::Invalid(format!("`{{{{{}` names no variable; `{{{{{{{{` is a literal `{{{{`", shown())));
        }
        pieces.push(Piece::Variable(name));
        rest = &inside[close + 2..];
    }
    pieces.push(Piece::Literal(rest));
    pieces.retain(|p| *p != Piece::Literal(""));
    Ok(pieces)
}

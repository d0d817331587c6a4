//! Evaluates a template over values: no code, a bounded number of steps, a bounded output.

use super::expression::{Call, Expression, Path};
use super::parser::{Node, Template, parse};
use super::{Format, Media, Piece, text_of};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use stockade_guest::types::Role;
use stockade_guest::{Error, Result};

/// An included template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inclusion {
    pub text: String,
    /// What the names that it includes stand for.
    #[serde(default)]
    pub partials: BTreeMap<String, String>,
}

/// Included templates by what the names stand for.
pub type Inclusions = BTreeMap<String, Inclusion>;

/// What a template is evaluated over.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub format: Format,
    /// The variables: an object.
    pub values: &'a Value,
    /// What `{{@name}}` stands for.
    pub context: &'a Map<String, Value>,
    /// Names of variables that are images.
    pub images: &'a BTreeSet<String>,
    pub partials: &'a BTreeMap<String, String>,
    pub inclusions: &'a Inclusions,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of all text and media.
    pub output_bytes: usize,
    /// Most nodes that are evaluated, inclusions by their bytes.
    pub steps: usize,
    /// Most inclusions and blocks inside of each other.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { output_bytes: 4 << 20, steps: 1_000_000, depth: 64 }
    }
}

pub fn evaluate(template: &Template, inputs: &Inputs<'_>, limits: Limits) -> Result<Vec<Piece>> {
    let mut evaluation = Evaluation { inputs, limits, pieces: Vec::new(), bytes: 0, steps: 0, parsed: BTreeMap::new() };
    let scope = Scope { value: inputs.values, parent: None, data: None };
    evaluation.nodes(&template.nodes, &scope, inputs.partials, 0)?;
    Ok(evaluation.pieces)
}

impl Inputs<'_> {
    fn lookup<'s>(&'s self, expression: &'s Expression, scope: &'s Scope<'s>) -> Option<&'s Value> {
        let path = match expression {
            Expression::Literal(value) => return Some(value),
            Expression::Path(path) => path,
        };
        match self.format {
            Format::Simple => self.values.get(path.segments.first()?),
            Format::Mustache => mustache(path, scope),
            Format::Dotprompt => self.handlebars(path, scope),
        }
    }

    fn handlebars<'s>(&'s self, path: &'s Path, mut scope: &'s Scope<'s>) -> Option<&'s Value> {
        for _ in 0..path.up {
            scope = scope.parent?;
        }
        if !path.is_data {
            return follow(scope.value, &path.segments);
        }
        let (name, rest) = path.segments.split_first()?;
        if name == "root" {
            return follow(self.values, rest);
        }
        let mut around = Some(scope);
        while let Some(scope) = around {
            if let Some(found) = scope.data.and_then(|d| d.get(name)) {
                return follow(found, rest);
            }
            around = scope.parent;
        }
        follow(self.context.get(name)?, rest)
    }
}

struct Evaluation<'a> {
    inputs: &'a Inputs<'a>,
    limits: Limits,
    pieces: Vec<Piece>,
    bytes: usize,
    steps: usize,
    /// Inclusions by key and indentation.
    parsed: BTreeMap<(String, String), Rc<Template>>,
}

/// A context and those around it.
struct Scope<'s> {
    value: &'s Value,
    parent: Option<&'s Scope<'s>>,
    /// `index`, `key`, `first` and `last` of a loop.
    data: Option<&'s Value>,
}

impl<'s> Scope<'s> {
    fn inner(&'s self, value: &'s Value) -> Scope<'s> {
        Scope { value, parent: Some(self), data: None }
    }
}

impl Evaluation<'_> {
    fn nodes(
        &mut self,
        nodes: &[Node],
        scope: &Scope<'_>,
        partials: &BTreeMap<String, String>,
        depth: usize,
    ) -> Result<()> {
        if depth > self.limits.depth {
            return Err(Error::TooLarge(format!("{} inclusions and blocks inside of each other", self.limits.depth)));
        }
        let inputs = self.inputs;
        for node in nodes {
            self.step(1)?;
            match node {
                Node::Text(text) => self.text(text)?,
                Node::Value { call, escape } => self.value(call, *escape, scope)?,
                Node::Block { call, body, otherwise } => self.block(call, [body, otherwise], scope, partials, depth)?,
                Node::Partial { name, context, fields, indent } => {
                    let Some((key, inclusion)) =
                        partials.get(name).and_then(|key| inputs.inclusions.get_key_value(key))
                    else {
                        continue;
                    };
                    let template = self.inclusion(key, inclusion, indent)?;
                    let value = context.as_ref().map_or(Some(scope.value), |e| inputs.lookup(e, scope));
                    let value = value.unwrap_or(&Value::Null);
                    if context.is_none() && fields.is_empty() {
                        self.nodes(&template.nodes, scope, &inclusion.partials, depth + 1)?;
                        continue;
                    }
                    let mut merged = value.as_object().cloned().unwrap_or_default();
                    self.step(merged.len())?;
                    for (name, expression) in fields {
                        let field = inputs.lookup(expression, scope).cloned().unwrap_or_default();
                        merged.insert(name.clone(), field);
                    }
                    let merged = if fields.is_empty() { value.clone() } else { Value::Object(merged) };
                    self.nodes(&template.nodes, &scope.inner(&merged), &inclusion.partials, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn inclusion(&mut self, key: &str, inclusion: &Inclusion, indent: &str) -> Result<Rc<Template>> {
        let at = (key.to_string(), indent.to_string());
        if let Some(known) = self.parsed.get(&at) {
            return Ok(known.clone());
        }
        self.step(inclusion.text.len() / 16 + indent.len())?;
        let template = match indent {
            "" => parse(self.inputs.format, &inclusion.text)?,
            _ => {
                let lines = inclusion.text.split_inclusive('\n').map(|line| format!("{indent}{line}"));
                parse(self.inputs.format, &lines.collect::<String>())?
            }
        };
        let template = Rc::new(template);
        self.parsed.insert(at, template.clone());
        Ok(template)
    }

    fn value(&mut self, call: &Call, escape: bool, scope: &Scope<'_>) -> Result<()> {
        let inputs = self.inputs;
        if inputs.format == Format::Dotprompt && self.helper(call, scope)? {
            return Ok(());
        }
        let Some(value) = inputs.lookup(&call.head, scope) else { return Ok(()) };
        let is_image = call.name().is_some_and(|name| {
            inputs.images.contains(name) && inputs.values.get(name).is_some_and(|v| std::ptr::eq(v, value))
        });
        if is_image {
            return self.media(value.clone(), None);
        }
        let text = text_of(value);
        if escape { self.text(&escaped(&text)) } else { self.text(&text) }
    }

    /// Carries a helper out; `false`: it is none.
    fn helper(&mut self, call: &Call, scope: &Scope<'_>) -> Result<bool> {
        let inputs = self.inputs;
        let field = |name: &str| call.field(name).and_then(|e| inputs.lookup(e, scope));
        match (call.name(), call.arguments.as_slice()) {
            (Some("json"), [value]) => {
                let value = inputs.lookup(value, scope).unwrap_or(&Value::Null);
                let json = match field("indent").and_then(Value::as_u64) {
                    Some(indent) => indented(value, indent.min(16) as usize)?,
                    None => value.to_string(),
                };
                self.text(&json)?;
            }
            (Some("role"), [role]) => {
                let name = inputs.lookup(role, scope).map(text_of).unwrap_or_default();
                let role = role_of(&name).ok_or_else(|| Error::Invalid(format!("`{name}` is no role")))?;
                self.pieces.push(Piece::Role(role));
            }
            (Some("history"), []) => self.pieces.push(Piece::History),
            (Some("media"), []) if call.field("url").is_some() => {
                let source = field("url").cloned().unwrap_or_default();
                let content_type = field("contentType").map(text_of);
                self.media(source, content_type.filter(|t| !t.is_empty()))?;
            }
            _ => return Ok(false),
        }
        self.step(1)?;
        Ok(true)
    }

    fn media(&mut self, source: Value, content_type: Option<String>) -> Result<()> {
        self.spend(source.as_str().map_or_else(|| source.to_string().len(), str::len))?;
        self.pieces.push(Piece::Media(Media { source, content_type }));
        Ok(())
    }

    fn block(
        &mut self,
        call: &Call,
        [body, otherwise]: [&[Node]; 2],
        scope: &Scope<'_>,
        partials: &BTreeMap<String, String>,
        depth: usize,
    ) -> Result<()> {
        let depth = depth + 1;
        let inputs = self.inputs;
        let argument = |n: usize| call.arguments.get(n).and_then(|x| inputs.lookup(x, scope)).unwrap_or(&Value::Null);
        let is_helper = inputs.format == Format::Dotprompt && !call.arguments.is_empty();
        let holds = match call.name().filter(|_| is_helper) {
            Some("if") => is_true(argument(0)),
            Some("unless") => !is_true(argument(0)),
            Some("ifEquals") => argument(0) == argument(1),
            Some("unlessEquals") => argument(0) != argument(1),
            Some("with") if is_true(argument(0)) => {
                return self.nodes(body, &scope.inner(argument(0)), partials, depth);
            }
            Some("with") => false,
            Some("each") => return self.each(argument(0), [body, otherwise], scope, partials, depth),
            _ => {
                return match inputs.lookup(&call.head, scope).unwrap_or(&Value::Null) {
                    Value::Null | Value::Bool(false) => self.nodes(otherwise, scope, partials, depth),
                    Value::Bool(true) => self.nodes(body, scope, partials, depth),
                    list @ Value::Array(_) => self.each(list, [body, otherwise], scope, partials, depth),
                    value => self.nodes(body, &scope.inner(value), partials, depth),
                };
            }
        };
        self.nodes(if holds { body } else { otherwise }, scope, partials, depth)
    }

    fn each(
        &mut self,
        value: &Value,
        [body, otherwise]: [&[Node]; 2],
        scope: &Scope<'_>,
        partials: &BTreeMap<String, String>,
        depth: usize,
    ) -> Result<()> {
        let items: Vec<(Value, &Value)> = match value {
            Value::Array(items) => items.iter().enumerate().map(|(i, v)| (json!(i), v)).collect(),
            Value::Object(fields) => fields.iter().map(|(k, v)| (json!(k), v)).collect(),
            _ => Vec::new(),
        };
        if items.is_empty() {
            return self.nodes(otherwise, scope, partials, depth);
        }
        let last = items.len() - 1;
        for (index, (key, item)) in items.into_iter().enumerate() {
            self.step(1)?;
            let data = json!({"index": index, "key": key, "first": index == 0, "last": index == last});
            let inner = Scope { data: Some(&data), ..scope.inner(item) };
            self.nodes(body, &inner, partials, depth)?;
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<()> {
        self.spend(text.len())?;
        match self.pieces.last_mut() {
            _ if text.is_empty() => {}
            Some(Piece::Text(before)) => before.push_str(text),
            _ => self.pieces.push(Piece::Text(text.into())),
        }
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.output_bytes {
            return Err(Error::TooLarge(format!("{} bytes a rendered prompt", self.limits.output_bytes)));
        }
        Ok(())
    }

    fn step(&mut self, steps: usize) -> Result<()> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limits.steps {
            return Err(Error::TooLarge(format!("{} steps to render a prompt", self.limits.steps)));
        }
        Ok(())
    }
}

/// The nearest context that has the path's first name; from there on, all names must be found.
fn mustache<'s>(path: &Path, scope: &'s Scope<'s>) -> Option<&'s Value> {
    let Some((name, rest)) = path.segments.split_first() else {
        return Some(scope.value);
    };
    let mut around = Some(scope);
    while let Some(scope) = around {
        if let Some(found) = scope.value.get(name) {
            return follow(found, rest);
        }
        around = scope.parent;
    }
    None
}

fn follow<'v>(value: &'v Value, names: &[String]) -> Option<&'v Value> {
    names.iter().try_fold(value, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// Handlebars' own notion: empty text, zero and empty lists are false as well.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Number(n) => n.as_f64() != Some(0.0),
        _ => true,
    }
}

pub fn role_of(name: &str) -> Option<Role> {
    Some(match name {
        "system" => Role::System,
        "user" => Role::User,
        "model" | "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        _ => return None,
    })
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

fn indented(value: &Value, indent: usize) -> Result<String> {
    let spaces = " ".repeat(indent);
    let mut out = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, style))?;
    String::from_utf8(out).map_err(|e| Error::Other(e.to_string()))
}

//! What stands inside of a tag: a path or a helper with its arguments.

use super::Format;
use serde_json::Value;
use stockade_guest::{Error, Result};

/// `head args.. key=value..`
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub head: Expression,
    pub arguments: Vec<Expression>,
    pub fields: Vec<(String, Expression)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    Literal(Value),
    Path(Path),
}

/// `../a.b`, `this`, `@index`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Path {
    /// How many contexts up.
    pub up: usize,
    /// Of the evaluation's data and not of the context.
    pub is_data: bool,
    /// Empty: the context itself.
    pub segments: Vec<String>,
}

/// Most parts of a tag.
const MAX_PARTS: usize = 64;
/// Most segments of a path.
const MAX_SEGMENTS: usize = 32;

impl Path {
    /// The name, where the path is nothing more.
    pub fn name(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [name] if self.up == 0 && !self.is_data => Some(name),
            _ => None,
        }
    }
}

impl Call {
    /// The head's name, where it is nothing more.
    pub fn name(&self) -> Option<&str> {
        match &self.head {
            Expression::Path(path) => path.name(),
            Expression::Literal(_) => None,
        }
    }

    pub fn field(&self, name: &str) -> Option<&Expression> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, e)| e)
    }
}

pub fn parse(format: Format, content: &str) -> Result<Call> {
    match format {
        Format::Simple if is_name(content) => Ok(path_alone(vec![content.into()])),
        Format::Simple => {
            let shown: String = content.chars().take(32).collect();
            Err(Error::Invalid(format!("`{{{{{shown}}}}}` names no variable; `{{{{{{{{` is a literal `{{{{`")))
        }
        Format::Mustache if content == "." => Ok(path_alone(Vec::new())),
        Format::Mustache => Ok(path_alone(segments(content)?)),
        Format::Dotprompt => handlebars(content),
    }
}

/// A variable's name.
pub fn is_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(fine)
}

fn path_alone(segments: Vec<String>) -> Call {
    let head = Expression::Path(Path { segments, ..Path::default() });
    Call { head, arguments: Vec::new(), fields: Vec::new() }
}

fn segments(text: &str) -> Result<Vec<String>> {
    let segments: Vec<String> = text.split('.').map(str::to_string).collect();
    if segments.len() > MAX_SEGMENTS || segments.iter().any(|s| s.is_empty() || s.contains(char::is_whitespace)) {
        return Err(Error::Invalid(format!("`{}` is no path", text.chars().take(64).collect::<String>())));
    }
    Ok(segments)
}

fn handlebars(content: &str) -> Result<Call> {
    let mut parts = parts(content)?.into_iter();
    let Some((None, head)) = parts.next() else {
        return Err(Error::Invalid(format!("`{{{{{content}}}}}` names nothing")));
    };
    let mut call = Call { head, arguments: Vec::new(), fields: Vec::new() };
    for (name, value) in parts {
        match name {
            Some(name) => call.fields.push((name, value)),
            None => call.arguments.push(value),
        }
    }
    Ok(call)
}

/// The parts of a tag, with the name of those that have one.
fn parts(content: &str) -> Result<Vec<(Option<String>, Expression)>> {
    let mut parts = Vec::new();
    let mut rest = content.trim_start();
    while !rest.is_empty() {
        if parts.len() == MAX_PARTS {
            return Err(Error::TooLarge(format!("{MAX_PARTS} parts a tag")));
        }
        let name = rest.find(['=', '"', '\'', ' ', '\t', '\n', '\r']).filter(|&n| rest[n..].starts_with('='));
        let name = name.filter(|&n| is_name(&rest[..n])).map(|n| {
            let name = rest[..n].to_string();
            rest = &rest[n + 1..];
            name
        });
        let (value, after) = expression(rest)?;
        parts.push((name, value));
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err(Error::Invalid(format!("`{content}`: a space is missing")));
        }
        rest = after.trim_start();
    }
    Ok(parts)
}

fn expression(text: &str) -> Result<(Expression, &str)> {
    if let Some(quote) = text.chars().next().filter(|c| ['"', '\''].contains(c)) {
        let inside = &text[1..];
        let end = inside.find(quote).ok_or_else(|| Error::Invalid(format!("`{text}`: a quote is not closed")))?;
        return Ok((Expression::Literal(inside[..end].into()), &inside[end + 1..]));
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let literal = match word {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        "null" | "undefined" => Some(Value::Null),
        _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            let number = serde_json::from_str(word).map_err(|_| Error::Invalid(format!("`{word}` is no number")))?;
            Some(Value::Number(number))
        }
        _ => None,
    };
    Ok((literal.map_or_else(|| path(word).map(Expression::Path), |l| Ok(Expression::Literal(l)))?, rest))
}

fn path(word: &str) -> Result<Path> {
    let mut rest = word;
    let mut path = Path::default();
    while let Some(up) = rest.strip_prefix("..") {
        path.up += 1;
        rest = up.strip_prefix('/').unwrap_or(up);
        if path.up > MAX_SEGMENTS {
            return Err(Error::Invalid(format!("`{word}` is no path")));
        }
    }
    if let Some(data) = rest.strip_prefix('@') {
        path.is_data = true;
        rest = data;
    }
    rest = rest.strip_prefix("./").or(rest.strip_prefix("this.")).or(rest.strip_prefix("this/")).unwrap_or(rest);
    if rest.is_empty() && path.up > 0 || rest == "this" || rest == "." {
        return Ok(path);
    }
    if rest.contains(['(', ')', '|', '[', ']', '{', '}', '"', '\'', '`']) {
        return Err(Error::Invalid(format!("`{word}` is no path; subexpressions and block parameters are not served")));
    }
    path.segments = segments(&rest.replace('/', "."))?;
    Ok(path)
}

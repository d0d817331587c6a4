//! What chat templates use of Python: string and mapping methods, `tojson` as `json.dumps` prints, `raise_exception`,
//! and values printed as Python prints them.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// A template's own refusal, found again in the error's sources.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Deepest nesting that is printed as JSON or Python.
const MAX_DEPTH: usize = 64;

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.set_formatter(|out, _, value| {
        let mut text = String::new();
        display(value, &mut text)?;
        out.write_str(&text).map_err(|_| Error::new(ErrorKind::WriteFailure, "the output is full"))
    });
    environment.add_filter("tojson", tojson);
    environment.add_filter("string", |value: &Value| -> Result<String, Error> {
        let mut text = String::new();
        display(value, &mut text)?;
        Ok(text)
    });
    environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(text)))
    });
}

/// `str(value)`.
fn display(value: &Value, out: &mut String) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::String => out.push_str(value.as_str().unwrap_or_default()),
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Map | ValueKind::Number => {
            write(value, out, &Layout::PYTHON, 0)?;
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// `json.dumps(value, ensure_ascii=False, indent=.., separators=.., sort_keys=..)`.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    options.assert_all_used()?;
    let default_item = if indent.is_some() { "," } else { ", " };
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        _ => (default_item, ": "),
    };
    let layout = Layout { json: true, indent: indent.map(|n| n.min(64)), item, key, sort_keys, ascii };
    let mut out = String::new();
    write(value, &mut out, &layout, 0)?;
    Ok(Value::from_safe_string(out))
}

struct Layout<'a> {
    /// JSON's words and quotes, else Python's.
    json: bool,
    indent: Option<usize>,
    item: &'a str,
    key: &'a str,
    sort_keys: bool,
    ascii: bool,
}

impl Layout<'static> {
    const PYTHON: Self = Self { json: false, indent: None, item: ", ", key: ": ", sort_keys: false, ascii: false };
}

impl Layout<'_> {
    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }
}

fn write(value: &Value, out: &mut String, layout: &Layout<'_>, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH || out.len() > super::MAX_RENDERED_BYTES {
        return Err(Error::new(ErrorKind::WriteFailure, "the value is too large"));
    }
    match value.kind() {
        ValueKind::Undefined if layout.json => {
            return Err(Error::new(ErrorKind::InvalidOperation, "an undefined value has no JSON"));
        }
        ValueKind::None | ValueKind::Undefined => out.push_str(if layout.json { "null" } else { "None" }),
        ValueKind::Bool => out.push_str(match (value.is_true(), layout.json) {
            (true, true) => "true",
            (false, true) => "false",
            (true, false) => "True",
            (false, false) => "False",
        }),
        ValueKind::Number => number(value, out),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            if layout.json { json_string(text, layout.ascii, out) } else { python_string(text, out) }
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if layout.sort_keys {
                keys.sort();
            }
            out.push('{');
            for (i, key) in keys.iter().enumerate() {
                out.push_str(if i > 0 { layout.item } else { "" });
                layout.new_line(out, depth + 1);
                match key.as_str() {
                    Some(key) if layout.json => json_string(key, layout.ascii, out),
                    None if layout.json => json_string(&key.to_string(), layout.ascii, out),
                    _ => write(key, out, layout, depth + 1)?,
                }
                out.push_str(layout.key);
                write(&value.get_item(key)?, out, layout, depth + 1)?;
            }
            if !keys.is_empty() {
                layout.new_line(out, depth);
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut empty = true;
            for item in value.try_iter()? {
                out.push_str(if empty { "" } else { layout.item });
                empty = false;
                layout.new_line(out, depth + 1);
                write(&item, out, layout, depth + 1)?;
            }
            if !empty {
                layout.new_line(out, depth);
            }
            out.push(']');
        }
        _ => {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("a {} has no JSON", value.kind())));
        }
    }
    Ok(())
}

/// `repr` of an int or a float: floats keep a fraction or an exponent, large and small ones as `1e+20`, `1e-07`.
fn number(value: &Value, out: &mut String) {
    let text = value.to_string();
    let Some(float) = f64::try_from(value.clone()).ok().filter(|_| !value.is_integer()) else {
        return out.push_str(&text);
    };
    let size = float.abs();
    if !float.is_finite() {
        out.push_str(if float.is_nan() {
            "NaN"
        } else if float > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        });
    } else if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
        out.push_str(&format!("{digits}e{sign}{exponent:0>2}"));
    } else {
        out.push_str(&format!("{float:?}"));
    }
}

fn json_string(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// `repr` of a string: single quotes unless only those are inside.
fn python_string(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// Methods of `str`, `dict` and `list` that minijinja does not have.
fn method(_: &State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), name, args),
        ValueKind::Map => mapping_method(value, name, args),
        ValueKind::Seq => list_method(value, name, args),
        _ => None,
    }
    .unwrap_or_else(|| {
        Err(Error::new(ErrorKind::UnknownMethod, format!("{} has no method named {name}", value.kind())))
    })
}

type MethodResult = Option<Result<Value, Error>>;

fn string_method(text: &str, name: &str, args: &[Value]) -> MethodResult {
    let arg = |i: usize| args.get(i).filter(|a| !a.is_none());
    let str_arg = |i: usize| arg(i).and_then(Value::as_str);
    let need =
        |i: usize| str_arg(i).ok_or_else(|| Error::new(ErrorKind::MissingArgument, format!("{name} needs a string")));
    let count = arg(1).and_then(Value::as_i64).and_then(|n| usize::try_from(n).ok());
    let strip = |left: bool, right: bool| {
        let chars: Option<Vec<char>> = str_arg(0).map(|set| set.chars().collect());
        let inside = |c: char| chars.as_ref().map_or(c.is_whitespace(), |set| set.contains(&c));
        let text = if left { text.trim_start_matches(inside) } else { text };
        if right { text.trim_end_matches(inside) } else { text }
    };
    // A prefix or a tuple of them.
    let any_of = |test: &dyn Fn(&str) -> bool| -> Result<Value, Error> {
        let Some(arg) = arg(0) else {
            return need(0).map(Value::from);
        };
        match arg.as_str() {
            Some(one) => Ok(test(one).into()),
            None => Ok(arg.try_iter()?.any(|one| one.as_str().is_some_and(test)).into()),
        }
    };
    let list = |parts: Vec<&str>| Value::from(parts.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let position = |at: Option<usize>| at.map_or(-1, |at| text[..at].chars().count() as i64);
    Some(Ok(match name {
        "strip" => strip(true, true).into(),
        "lstrip" => strip(true, false).into(),
        "rstrip" => strip(false, true).into(),
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "capitalize" => {
            let mut chars = text.chars();
            let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
            (first + &chars.as_str().to_lowercase()).into()
        }
        "title" => title(text).into(),
        "isdigit" => (!text.is_empty() && text.chars().all(char::is_numeric)).into(),
        "isspace" => (!text.is_empty() && text.chars().all(char::is_whitespace)).into(),
        "startswith" => return Some(any_of(&|one| text.starts_with(one))),
        "endswith" => return Some(any_of(&|one| text.ends_with(one))),
        "removeprefix" => {
            return Some(need(0).map(|p| text.strip_prefix(p).unwrap_or(text).into()));
        }
        "removesuffix" => {
            return Some(need(0).map(|p| text.strip_suffix(p).unwrap_or(text).into()));
        }
        "find" => return Some(need(0).map(|part| position(text.find(part)).into())),
        "rfind" => return Some(need(0).map(|part| position(text.rfind(part)).into())),
        "count" => return Some(need(0).map(|part| text.matches(part).count().into())),
        "replace" => {
            let times = arg(2).and_then(Value::as_i64).and_then(|n| usize::try_from(n).ok());
            let replaced = need(0).and_then(|from| Ok((from, need(1)?)));
            return Some(replaced.and_then(|(from, to)| {
                bounded(text.len().saturating_add(text.len().saturating_add(1).saturating_mul(to.len())))?;
                Ok(match times {
                    Some(n) => text.replacen(from, to, n),
                    None => text.replace(from, to),
                }
                .into())
            }));
        }
        "split" => list(match (str_arg(0), count) {
            (Some(""), _) => {
                return Some(Err(Error::new(ErrorKind::InvalidOperation, "empty separator")));
            }
            (Some(at), None) => text.split(at).collect(),
            (Some(at), Some(n)) => text.splitn(n.saturating_add(1), at).collect(),
            (None, None) => text.split_whitespace().collect(),
            (None, Some(n)) => split_words(text, n),
        }),
        "rsplit" => match (str_arg(0), count) {
            (Some(""), _) => {
                return Some(Err(Error::new(ErrorKind::InvalidOperation, "empty separator")));
            }
            (Some(at), Some(n)) => {
                let mut parts: Vec<&str> = text.rsplitn(n.saturating_add(1), at).collect();
                parts.reverse();
                list(parts)
            }
            (Some(at), None) => list(text.split(at).collect()),
            (None, _) => list(text.split_whitespace().collect()),
        },
        "partition" => {
            return Some(need(0).map(|at| match text.split_once(at) {
                Some((left, right)) => list(vec![left, at, right]),
                None => list(vec![text, "", ""]),
            }));
        }
        "splitlines" => list(text.lines().collect()),
        "join" => {
            let Some(items) = arg(0) else {
                return Some(need(0).map(Value::from));
            };
            let items = match items.try_iter() {
                Ok(items) => items.map(|item| item.to_string()).collect::<Vec<_>>(),
                Err(error) => return Some(Err(error)),
            };
            items.join(text).into()
        }
        _ => return None,
    }))
}

fn mapping_method(value: &Value, name: &str, args: &[Value]) -> MethodResult {
    let keys = || value.try_iter().map(|keys| keys.collect::<Vec<_>>());
    let item = |key: &Value| value.get_item(key).unwrap_or_default();
    match name {
        "items" => Some(keys().map(|keys| keys.iter().map(|k| Value::from(vec![k.clone(), item(k)])).collect())),
        "keys" => Some(keys().map(Value::from)),
        "values" => Some(keys().map(|keys| keys.iter().map(item).collect())),
        "get" => {
            let found = args.first().map(item).filter(|found| !found.is_undefined());
            Some(Ok(found.unwrap_or_else(|| args.get(1).cloned().unwrap_or(Value::from(())))))
        }
        _ => None,
    }
}

fn list_method(value: &Value, name: &str, args: &[Value]) -> MethodResult {
    let matches = |item: &Value| args.first() == Some(item);
    match name {
        "count" => Some(value.try_iter().map(|items| items.filter(|item| matches(item)).count().into())),
        "index" => Some(value.try_iter().and_then(|mut items| {
            let at = items.position(|item| matches(&item));
            at.map(Value::from).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "value is not in the list"))
        })),
        _ => None,
    }
}

/// `str.title`: the first letter of each run of letters large, the rest small.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        inside = c.is_alphabetic();
    }
    out
}

/// `str.split(None, n)`: at most `n` cuts at white space, the rest as it is.
fn split_words(text: &str, n: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while parts.len() < n {
        let Some(at) = rest.find(char::is_whitespace) else {
            break;
        };
        parts.push(&rest[..at]);
        rest = rest[at..].trim_start();
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    parts
}

fn bounded(bytes: usize) -> Result<(), Error> {
    if bytes > 4 * super::MAX_RENDERED_BYTES {
        return Err(Error::new(ErrorKind::WriteFailure, "the text is too large"));
    }
    Ok(())
}

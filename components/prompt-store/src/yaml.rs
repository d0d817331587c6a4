//! YAML as JSON values: what front matter needs of it. Aliases are refused, since a few of them can stand for gigabytes.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};
use stockade_guest::{Error, Result};

/// Most bytes of a document.
const MAX_BYTES: usize = 64 << 10;
/// Most values inside of each other.
const MAX_DEPTH: usize = 32;

/// The first document of `text`; `null` when there is none.
pub fn read(text: &str) -> Result<Value> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLarge(format!("{MAX_BYTES} bytes of YAML")));
    }
    let mut reader = Reader { open: Vec::new(), document: None };
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|e| Error::Invalid(format!("YAML: {e}")))?;
        match event {
            Event::Scalar(text, style, ..) => reader.value(scalar(&text, style))?,
            Event::SequenceStart(..) => reader.begin(Open::List(Vec::new()))?,
            Event::MappingStart(..) => reader.begin(Open::Map(Map::new(), None))?,
            Event::SequenceEnd | Event::MappingEnd => reader.end()?,
            Event::Alias(_) => return Err(Error::Invalid("YAML: aliases are not served".into())),
            Event::DocumentEnd => break,
            _ => {}
        }
    }
    Ok(reader.document.unwrap_or_default())
}

struct Reader {
    open: Vec<Open>,
    document: Option<Value>,
}

enum Open {
    List(Vec<Value>),
    /// With the key that waits for its value.
    Map(Map<String, Value>, Option<String>),
}

impl Reader {
    fn begin(&mut self, open: Open) -> Result<()> {
        if self.open.len() == MAX_DEPTH {
            return Err(Error::TooLarge(format!("{MAX_DEPTH} YAML values inside of each other")));
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        match self.open.pop() {
            Some(Open::List(items)) => self.value(Value::Array(items)),
            Some(Open::Map(fields, _)) => self.value(Value::Object(fields)),
            None => Ok(()),
        }
    }

    fn value(&mut self, value: Value) -> Result<()> {
        match self.open.last_mut() {
            None => self.document = Some(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Map(fields, key)) => match (key.take(), value) {
                (Some(name), value) => {
                    if fields.insert(name.clone(), value).is_some() {
                        return Err(Error::Invalid(format!("YAML: `{name}` stands there twice")));
                    }
                }
                (None, Value::Array(_) | Value::Object(_)) => {
                    return Err(Error::Invalid("YAML: a key has to be a scalar".into()));
                }
                (None, Value::String(name)) => *key = Some(name),
                (None, other) => *key = Some(other.to_string()),
            },
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return text.into();
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        // JSON's numbers; YAML's other ways to write one stay text.
        _ => match serde_json::from_str::<serde_json::Number>(text) {
            Ok(number) => Value::Number(number),
            Err(_) => text.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_become_json_and_bombs_are_refused() {
        let read = |text: &str| read(text).unwrap();
        assert_eq!(
            read("a: 1\nb: [x, 'true', null]\nc:\n  d: >\n    e\n    f\n"),
            json!({"a": 1, "b": ["x", "true", null], "c": {"d": "e f\n"}})
        );
        assert_eq!(read("a?(enum, x): [R]\n(*): any"), json!({"a?(enum, x)": ["R"], "(*)": "any"}));
        assert_eq!(read(""), json!(null));
        for bad in ["a: &x [1]\nb: *x", "a: [", "a: 1\na: 2", "? [a]\n: 1", &"[".repeat(100), &"#".repeat(70_000)] {
            assert!(super::read(bad).is_err(), "{bad:.20}");
        }
    }
}

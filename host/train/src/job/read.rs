//! Reads a job's JSON a key at a time: every value is bounded, and a refusal names the key's path.
//!
//! Invariant: a key that nobody asked for is refused, with the nearest key of its section.

use serde_json::{Map, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;
use stockade_core::spelling::edits;
use stockade_core::train::TrainError;

/// Longest text of a value in bytes: names, paths.
const MAX_TEXT_BYTES: usize = 4096;
/// Most entries of a list.
const MAX_LIST: usize = 4096;

/// Names of an enumeration as job files spell them.
pub trait Named: Copy + 'static {
    const ALL: &'static [Self];
    fn name(self) -> &'static str;
}

/// Declares an enumeration whose cases have names in job files.
macro_rules! named {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$case_doc:meta])* $case:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$case_doc])* $case,)+ }

        impl $crate::job::Named for $name {
            const ALL: &'static [Self] = &[$(Self::$case,)+];
            fn name(self) -> &'static str {
                match self { $(Self::$case => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($crate::job::Named::name(*self))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str($crate::job::Named::name(*self))
            }
        }
    };
}
pub(crate) use named;

/// One table of the job.
pub(super) struct Section<'a> {
    path: String,
    fields: Option<&'a Map<String, Value>>,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub fn root(value: &'a Value) -> Result<Self, TrainError> {
        Self::of(String::new(), Some(value))
    }

    /// A table within this one; an absent one reads as empty.
    pub fn section(&mut self, key: &'static str) -> Result<Section<'a>, TrainError> {
        let value = self.take(key);
        Self::of(self.path_of(key), value)
    }

    /// Whether the file has it at all, be it empty.
    pub fn present(&self) -> bool {
        self.fields.is_some()
    }

    pub fn of(path: String, value: Option<&'a Value>) -> Result<Self, TrainError> {
        let fields = match value {
            None | Some(Value::Null) => None,
            Some(Value::Object(fields)) => Some(fields),
            Some(other) => return Err(TrainError::spec(path, format!("expected a table, found {}", kind(other)))),
        };
        Ok(Self { path, fields, asked: Vec::new() })
    }

    /// The value of `key`; null counts as absent, since TOML has none.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        self.asked.push(key);
        self.fields?.get(key).filter(|value| !value.is_null())
    }

    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn refuse(&self, key: &str, reason: impl Into<String>) -> TrainError {
        TrainError::spec(self.path_of(key), reason)
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> TrainError {
        self.refuse(key, format!("expected {expected}, found {}", kind(found)))
    }

    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, TrainError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Err(self.refuse(key, "is empty")),
            Some(Value::String(text)) if text.len() > MAX_TEXT_BYTES => {
                Err(self.refuse(key, format!("{} bytes exceed the limit of {MAX_TEXT_BYTES}", text.len())))
            }
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(self.wrong(key, "a text", other)),
        }
    }

    pub fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, TrainError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let texts = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().filter(|t| !t.is_empty()).map(str::to_owned)).collect()
        });
        let texts: Vec<String> = texts.ok_or_else(|| self.wrong(key, "a list of texts", value))?;
        if texts.len() > MAX_LIST || texts.iter().any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(self.refuse(key, format!("exceeds {MAX_LIST} entries of {MAX_TEXT_BYTES} bytes")));
        }
        Ok(Some(texts))
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, TrainError> {
        match self.take(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, "true or false", other)),
        }
    }

    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, TrainError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let integer = value.as_u64().or_else(|| {
            let number = value.as_f64()?;
            (number >= 0.0 && number.fract() == 0.0 && number <= 2f64.powi(53)).then_some(number as u64)
        });
        match integer {
            Some(integer) if range.contains(&integer) => Ok(Some(integer)),
            Some(integer) => Err(self.outside(key, integer, &range)),
            None if value.is_number() => Err(self.refuse(key, format!("{value} is no whole number of at least 0"))),
            None => Err(self.wrong(key, "a whole number", value)),
        }
    }

    pub fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<usize>, TrainError> {
        Ok(self.integer(key, range)?.map(|n| usize::try_from(n).unwrap_or(usize::MAX)))
    }

    pub fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Result<Option<f64>, TrainError> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if range.contains(&number) => Ok(Some(number)),
                Some(number) => Err(self.outside(key, number, &range)),
                None => Err(self.wrong(key, "a number", value)),
            },
        }
    }

    pub fn choice<T: Named>(&mut self, key: &'static str) -> Result<Option<T>, TrainError> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        let known = || T::ALL.iter().map(|case| case.name());
        match T::ALL.iter().find(|case| case.name() == text) {
            Some(&case) => Ok(Some(case)),
            None => {
                let names: Vec<&str> = known().collect();
                let hint = nearest(&text, known()).map(|name| format!("did you mean `{name}`? "));
                let reason = format!("`{text}` is unknown; {}it takes {}", hint.unwrap_or_default(), names.join(", "));
                Err(self.refuse(key, reason))
            }
        }
    }

    /// Refuses what was not asked for.
    pub fn finish(self) -> Result<(), TrainError> {
        for key in self.fields.into_iter().flat_map(Map::keys) {
            if !self.asked.contains(&key.as_str()) {
                let shown: String = key.chars().take(64).collect();
                let reason = match nearest(key, self.asked.iter().copied()) {
                    Some(name) => format!("unknown key; did you mean `{name}`?"),
                    None => format!("unknown key; known here are {}", self.asked.join(", ")),
                };
                return Err(self.refuse(&shown, reason));
            }
        }
        Ok(())
    }

    fn outside<T: Display>(&self, key: &str, found: T, range: &RangeInclusive<T>) -> TrainError {
        self.refuse(key, format!("{found} is not between {} and {}", range.start(), range.end()))
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// The name that is fewest edits away, if that is at most a third of its length.
fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let word: String = word.chars().take(64).collect();
    names
        .map(|name| (edits(&word, name), name))
        .filter(|&(edits, name)| edits <= name.len().div_ceil(3))
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_found_by_edits() {
        let names = ["learning_rate", "warmup_steps", "steps"];
        for (word, want) in [("learning_rat", Some("learning_rate")), ("step", Some("steps")), ("colour", None)] {
            assert_eq!(nearest(word, names.into_iter()), want, "{word}");
        }
    }
}

//! Reading a dialect's JSON object: unknown fields are ignored, a wrong type or range is refused by the field's name.

use crate::error::ApiError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// An object and the path that leads to it, for messages.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The body of a request.
    pub fn root(value: &'a Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, path: String::new() }),
            _ => Err(ApiError::invalid("body", "must be an object")),
        }
    }

    /// An object that stands at `path`.
    pub fn of(value: &'a Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            _ => Err(ApiError::invalid(path, "must be an object")),
        }
    }

    /// The path of a field, for messages.
    pub fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) }
    }

    pub fn wrong(&self, name: &str, reason: impl AsRef<str>) -> ApiError {
        ApiError::invalid(self.at(name), reason)
    }

    /// A field that is there and not `null`.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    pub fn need(&self, name: &str) -> Result<&'a Value, ApiError> {
        self.value(name).ok_or_else(|| self.wrong(name, "is required"))
    }

    pub fn str(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.typed(name, "must be a string", Value::as_str)
    }
    pub fn need_str(&self, name: &str) -> Result<&'a str, ApiError> {
        self.str(name)?.ok_or_else(|| self.wrong(name, "is required"))
    }
    pub fn bool(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "must be true or false", Value::as_bool)
    }
    pub fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, ApiError> {
        self.typed(name, "must be an array", Value::as_array)
    }
    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        self.value(name).map(|v| Fields::of(v, self.at(name))).transpose()
    }

    pub fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(n) = self.typed(name, "must be an integer", as_integer)? else {
            return Ok(None);
        };
        if !range.contains(&n) {
            return Err(self.wrong(name, format!("must be from {} to {}", range.start(), range.end())));
        }
        Ok(Some(n))
    }

    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let Some(n) = self.typed(name, "must be a number", Value::as_f64)? else {
            return Ok(None);
        };
        if !range.contains(&n) {
            return Err(self.wrong(name, format!("must be from {} to {}", range.start(), range.end())));
        }
        Ok(Some(n as f32))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }
    pub fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    fn typed<T>(
        &self,
        name: &str,
        must: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(v) => read(v).map(Some).ok_or_else(|| self.wrong(name, must)),
        }
    }
}

/// An integer, also where a client wrote it as `5.0`.
fn as_integer(v: &Value) -> Option<i64> {
    if let Some(n) = v.as_i64() {
        return Some(n);
    }
    let n = v.as_f64()?;
    // 2^53: beyond it a float does not name one integer.
    (n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0).then_some(n as i64)
}

//! Conditions on the fields of a JSON object, as searches have them.
//!
//! Two forms: an object of fields that must be equal, `{"lang": "en"}`, and OpenAI's, `{"type": "gt", "key": "year",
//! "value": 2020}` with `and` and `or` over `filters`. Numbers compare with numbers and texts with texts; a field that
//! is missing or of another kind is not equal and in no list, so `ne` and `nin` hold of it and nothing else does.
//!
//! The host's index and the SDK are built from this one file, so that both sides agree.

use serde_json::{Map, Value};
use std::cmp::Ordering;

/// Deepest nesting of `and` and `or`.
const MAX_DEPTH: usize = 8;
/// Most conditions of one filter.
const MAX_CONDITIONS: usize = 256;

/// A condition, ready to be tried on many objects.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// Every one holds; of none, too.
    And(Vec<Filter>),
    /// At least one holds.
    Or(Vec<Filter>),
    Field {
        key: String,
        operator: Operator,
        value: Value,
    },
}

/// How a field is compared with the filter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    /// The field, or an element of a field that is a list, is in the value's list.
    In,
    Nin,
    /// The field's text has the value in it, or its list has the value as an element.
    Contains,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(json: &Value) -> Result<Self, String> {
        let mut left = MAX_CONDITIONS;
        parse(json, MAX_DEPTH, &mut left)
    }

    pub fn matches(&self, fields: &Map<String, Value>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|f| f.matches(fields)),
            Self::Or(any) => any.iter().any(|f| f.matches(fields)),
            Self::Field { key, operator, value } => operator.holds(fields.get(key).unwrap_or(&Value::Null), value),
        }
    }
}

fn parse(json: &Value, depth: usize, left: &mut usize) -> Result<Filter, String> {
    let Some(object) = json.as_object() else {
        return Err("not an object".into());
    };
    if depth == 0 {
        return Err(format!("nested deeper than {MAX_DEPTH}"));
    }
    let kind = object.get("type").and_then(Value::as_str);
    let nested = object.get("filters").and_then(Value::as_array);
    if let (Some(kind @ ("and" | "or")), Some(filters)) = (kind, nested) {
        let filters = filters.iter().map(|f| parse(f, depth - 1, left)).collect::<Result<_, _>>()?;
        return Ok(if kind == "and" { Filter::And(filters) } else { Filter::Or(filters) });
    }
    let mut condition = |key: &str, operator, value: &Value| {
        *left = left.checked_sub(1).ok_or(format!("more than {MAX_CONDITIONS} conditions"))?;
        Ok::<_, String>(Filter::Field { key: key.into(), operator, value: value.clone() })
    };
    if let (Some(kind), Some(key), Some(value)) = (kind, object.get("key").and_then(Value::as_str), object.get("value"))
    {
        let operator = Operator::named(kind).ok_or_else(|| format!("`{kind}` is no comparison"))?;
        if matches!(operator, Operator::In | Operator::Nin) && !value.is_array() {
            return Err(format!("`{kind}` needs a list"));
        }
        return condition(key, operator, value);
    }
    let equal = object.iter().map(|(key, value)| condition(key, Operator::Eq, value));
    Ok(Filter::And(equal.collect::<Result<_, _>>()?))
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "gt" => Self::Gt,
            "gte" => Self::Gte,
            "lt" => Self::Lt,
            "lte" => Self::Lte,
            "in" => Self::In,
            "nin" => Self::Nin,
            "contains" => Self::Contains,
            _ => return None,
        })
    }

    fn holds(self, field: &Value, value: &Value) -> bool {
        let ordered = |wanted: &[Ordering]| order(field, value).is_some_and(|o| wanted.contains(&o));
        match self {
            Self::Eq => equal(field, value),
            Self::Ne => !equal(field, value),
            Self::Gt => ordered(&[Ordering::Greater]),
            Self::Gte => ordered(&[Ordering::Greater, Ordering::Equal]),
            Self::Lt => ordered(&[Ordering::Less]),
            Self::Lte => ordered(&[Ordering::Less, Ordering::Equal]),
            Self::In | Self::Nin => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                let is_in = |item: &Value| list.iter().any(|v| equal(item, v));
                let found = match field {
                    Value::Array(items) => items.iter().any(is_in),
                    _ => is_in(field),
                };
                found == (self == Self::In)
            }
            Self::Contains => match (field, value) {
                (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
                (Value::Array(items), value) => items.iter().any(|item| equal(item, value)),
                _ => false,
            },
        }
    }
}

/// Equal values; numbers by their value, however they are written.
fn equal(a: &Value, b: &Value) -> bool {
    match order(a, b) {
        Some(order) => order == Ordering::Equal,
        None => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
        },
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_hold_as_the_table_says() {
        let fields = json!({"lang": "en", "year": 2021, "score": 0.5, "tags": ["a", "b"], "open": true});
        let fields = fields.as_object().unwrap();
        let field = |kind: &str, key: &str, value: Value| json!({"type": kind, "key": key, "value": value});
        for (filter, holds) in [
            (json!({}), true),
            (json!({"lang": "en", "year": 2021}), true),
            (json!({"lang": "en", "year": 2020}), false),
            (json!({"open": true}), true),
            (field("eq", "year", json!(2021.0)), true),
            (field("ne", "lang", json!("en")), false),
            (field("ne", "absent", json!("en")), true),
            (field("gt", "year", json!(2020)), true),
            (field("gt", "year", json!("2020")), false),
            (field("gte", "score", json!(0.5)), true),
            (field("lt", "absent", json!(1)), false),
            (field("lte", "lang", json!("en")), true),
            (field("in", "lang", json!(["de", "en"])), true),
            (field("in", "tags", json!(["b", "c"])), true),
            (field("nin", "lang", json!(["de"])), true),
            (field("nin", "tags", json!(["a"])), false),
            (field("nin", "absent", json!(["a"])), true),
            (field("contains", "tags", json!("b")), true),
            (field("contains", "lang", json!("e")), true),
            (field("contains", "year", json!(2)), false),
            (json!({"type": "and", "filters": [{"lang": "en"}, field("lt", "year", json!(2000))]}), false),
            (json!({"type": "or", "filters": [{"lang": "en"}, field("lt", "year", json!(2000))]}), true),
            (json!({"type": "or", "filters": []}), false),
            (json!({"type": "book"}), false),
        ] {
            assert_eq!(Filter::parse(&filter).unwrap().matches(fields), holds, "{filter}");
        }
    }

    #[test]
    fn filters_that_are_none_or_too_large_are_refused() {
        let mut deep = json!({"a": 1});
        for _ in 0..MAX_DEPTH {
            deep = json!({"type": "and", "filters": [deep]});
        }
        let many: Map<String, Value> = (0..=MAX_CONDITIONS).map(|i| (i.to_string(), json!(i))).collect();
        for bad in [
            json!([]),
            json!({"type": "like", "key": "a", "value": 1}),
            json!({"type": "in", "key": "a", "value": 1}),
            json!({"type": "and", "filters": [1]}),
            deep,
            Value::Object(many),
        ] {
            assert!(Filter::parse(&bad).is_err(), "{bad}");
        }
    }
}

//! Component values as JSON and back, for calls by name.
//!
//! | component | JSON |
//! |---|---|
//! | numbers, `bool`, `string` | the same; `u64` and `s64` exact; numbers that are not finite as text |
//! | `char` | text of one character |
//! | `list<u8>` | text in base64; an array of numbers is read as well, and an empty list is written as one |
//! | other `list`, `tuple` | array |
//! | `record` | object by field name |
//! | `variant`, `enum` | text of the case, or `{CASE: payload}` |
//! | `option` | `null` or the value |
//! | `result` | `{"ok": ..}` or `{"err": ..}` |
//! | `flags` | array of names |
//!
//! Resources, streams, futures and maps have no JSON and are refused by type.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value, json};
use wasmtime::component::{Type, Val};

/// Why a value has no counterpart: where and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {expected}")]
pub(crate) struct Mismatch {
    pub at: String,
    pub expected: String,
}

type Made<T> = Result<T, Mismatch>;

fn mismatch<T>(at: &str, expected: impl Into<String>) -> Made<T> {
    Err(Mismatch { at: at.to_string(), expected: expected.into() })
}

/// A value of type `ty` out of JSON; `at` names its place.
pub(crate) fn from_json(ty: &Type, json: &Value, at: &str) -> Made<Val> {
    Ok(match ty {
        Type::Bool => match json.as_bool() {
            Some(b) => Val::Bool(b),
            None => return mismatch(at, "a boolean"),
        },
        Type::S8 => Val::S8(signed(json, at)?),
        Type::S16 => Val::S16(signed(json, at)?),
        Type::S32 => Val::S32(signed(json, at)?),
        Type::S64 => Val::S64(signed(json, at)?),
        Type::U8 => Val::U8(unsigned(json, at)?),
        Type::U16 => Val::U16(unsigned(json, at)?),
        Type::U32 => Val::U32(unsigned(json, at)?),
        Type::U64 => Val::U64(unsigned(json, at)?),
        Type::Float32 => Val::Float32(float(json, at)? as f32),
        Type::Float64 => Val::Float64(float(json, at)?),
        Type::Char => {
            let mut chars = json.as_str().unwrap_or_default().chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Val::Char(c),
                _ => return mismatch(at, "text of one character"),
            }
        }
        Type::String => match json.as_str() {
            Some(s) => Val::String(s.to_string()),
            None => return mismatch(at, "text"),
        },
        Type::List(list) if list.ty() == Type::U8 && json.is_string() => {
            Val::List(bytes(json.as_str().unwrap_or_default(), at)?)
        }
        Type::List(list) => {
            let items = array(json, at)?;
            let items = items.iter().enumerate();
            let items = items.map(|(i, v)| from_json(&list.ty(), v, &format!("{at}[{i}]")));
            Val::List(items.collect::<Made<_>>()?)
        }
        Type::Tuple(tuple) => {
            let (items, types) = (array(json, at)?, tuple.types());
            if items.len() != types.len() {
                return mismatch(at, format!("an array of {}", types.len()));
            }
            let items = items.iter().zip(types).enumerate();
            let items = items.map(|(i, (v, ty))| from_json(&ty, v, &format!("{at}[{i}]")));
            Val::Tuple(items.collect::<Made<_>>()?)
        }
        Type::Record(record) => {
            let Some(object) = json.as_object() else {
                return mismatch(at, "an object");
            };
            let known: Vec<_> = record.fields().collect();
            if let Some(name) = object.keys().find(|k| known.iter().all(|f| f.name != **k)) {
                return mismatch(&format!("{at}.{name}"), "no field of this name");
            }
            let fields = known.into_iter().map(|field| {
                // An absent optional field is `null`.
                let value = object.get(field.name).unwrap_or(&Value::Null);
                let at = format!("{at}.{}", field.name);
                Ok((field.name.to_string(), from_json(&field.ty, value, &at)?))
            });
            Val::Record(fields.collect::<Made<_>>()?)
        }
        Type::Variant(variant) => {
            let (name, payload) = case(json, at)?;
            let Some(found) = variant.cases().find(|c| c.name == name) else {
                let names: Vec<_> = variant.cases().map(|c| c.name.to_string()).collect();
                return mismatch(at, format!("one of {}", names.join(", ")));
            };
            Val::Variant(name.clone(), payload_from(found.ty, payload, &name, at)?)
        }
        Type::Enum(e) => match json.as_str() {
            Some(name) if e.names().any(|n| n == name) => Val::Enum(name.to_string()),
            _ => {
                let names: Vec<_> = e.names().collect();
                return mismatch(at, format!("one of {}", names.join(", ")));
            }
        },
        Type::Option(option) => Val::Option(match json {
            Value::Null => None,
            json => Some(Box::new(from_json(&option.ty(), json, at)?)),
        }),
        Type::Result(result) => {
            let (name, payload) = case(json, at)?;
            match name.as_str() {
                "ok" => Val::Result(Ok(payload_from(result.ok(), payload, "ok", at)?)),
                "err" => Val::Result(Err(payload_from(result.err(), payload, "err", at)?)),
                _ => return mismatch(at, "`ok` or `err`"),
            }
        }
        Type::Flags(flags) => {
            let mut set = Vec::new();
            for item in array(json, at)? {
                match item.as_str() {
                    Some(name) if flags.names().any(|n| n == name) => set.push(name.to_string()),
                    _ => return mismatch(at, "names of flags"),
                }
            }
            Val::Flags(set)
        }
        _ => {
            return mismatch(at, "a type without JSON form (resource, stream, future or map)");
        }
    })
}

/// Most bytes of one `list<u8>`: each takes forty as a value of its own.
const MAX_BYTES: usize = 8 << 20;

fn bytes(base64: &str, at: &str) -> Made<Vec<Val>> {
    if base64.len() / 4 * 3 > MAX_BYTES + 2 {
        return mismatch(at, format!("at most {MAX_BYTES} bytes"));
    }
    match STANDARD.decode(base64) {
        Ok(bytes) => Ok(bytes.into_iter().map(Val::U8).collect()),
        Err(_) => mismatch(at, "base64, or an array of numbers"),
    }
}

fn payload_from(ty: Option<Type>, payload: Option<&Value>, name: &str, at: &str) -> Made<Option<Box<Val>>> {
    match (ty, payload) {
        (None, None | Some(Value::Null)) => Ok(None),
        (None, Some(_)) => mismatch(at, format!("`{name}` without payload")),
        (Some(ty), payload) => {
            let payload = payload.unwrap_or(&Value::Null);
            let value = from_json(&ty, payload, &format!("{at}.{name}"))?;
            Ok(Some(Box::new(value)))
        }
    }
}

/// The name and payload of `"CASE"` or `{"CASE": payload}`.
fn case<'a>(json: &'a Value, at: &str) -> Made<(String, Option<&'a Value>)> {
    match json {
        Value::String(name) => Ok((name.clone(), None)),
        Value::Object(map) if map.len() == 1 => match map.iter().next() {
            Some((name, payload)) => Ok((name.clone(), Some(payload))),
            None => mismatch(at, "a case"),
        },
        _ => mismatch(at, "the text of a case, or an object of one case"),
    }
}

fn array<'a>(json: &'a Value, at: &str) -> Made<&'a Vec<Value>> {
    match json.as_array() {
        Some(items) => Ok(items),
        None => mismatch(at, "an array"),
    }
}

fn signed<T: TryFrom<i64>>(json: &Value, at: &str) -> Made<T> {
    let number = json.as_i64().and_then(|n| n.try_into().ok());
    match number {
        Some(n) => Ok(n),
        None => mismatch(at, format!("a whole number of {} bits", 8 * size_of::<T>())),
    }
}

fn unsigned<T: TryFrom<u64>>(json: &Value, at: &str) -> Made<T> {
    let number = json.as_u64().and_then(|n| n.try_into().ok());
    match number {
        Some(n) => Ok(n),
        None => mismatch(at, format!("a whole number of {} bits, not negative", 8 * size_of::<T>())),
    }
}

fn float(json: &Value, at: &str) -> Made<f64> {
    match json {
        Value::Number(n) => n.as_f64().map_or_else(|| mismatch(at, "a number"), Ok),
        Value::String(s) if matches!(s.as_str(), "NaN" | "inf" | "-inf") => {
            s.parse().or_else(|_| mismatch(at, "a number"))
        }
        _ => mismatch(at, "a number"),
    }
}

/// A value as JSON.
pub(crate) fn to_json(value: &Val) -> Made<Value> {
    let named = |name: &str, payload: &Option<Box<Val>>| {
        Ok::<_, Mismatch>(match payload {
            None => json!({ name: null }),
            Some(payload) => json!({ name: to_json(payload)? }),
        })
    };
    Ok(match value {
        Val::Bool(v) => json!(v),
        Val::S8(v) => json!(v),
        Val::U8(v) => json!(v),
        Val::S16(v) => json!(v),
        Val::U16(v) => json!(v),
        Val::S32(v) => json!(v),
        Val::U32(v) => json!(v),
        Val::S64(v) => json!(v),
        Val::U64(v) => json!(v),
        Val::Float32(v) => number(f64::from(*v)),
        Val::Float64(v) => number(*v),
        Val::Char(v) => json!(v.to_string()),
        Val::String(v) => json!(v),
        Val::List(items) if matches!(items.first(), Some(Val::U8(_))) => {
            let bytes = items.iter().map(|v| if let Val::U8(byte) = v { *byte } else { 0 });
            json!(STANDARD.encode(bytes.collect::<Vec<u8>>()))
        }
        Val::List(items) | Val::Tuple(items) => Value::Array(items.iter().map(to_json).collect::<Made<_>>()?),
        Val::Record(fields) => {
            let fields = fields.iter().map(|(k, v)| Ok((k.clone(), to_json(v)?)));
            Value::Object(fields.collect::<Made<Map<_, _>>>()?)
        }
        Val::Variant(name, None) => json!(name),
        Val::Variant(name, payload) => named(name, payload)?,
        Val::Enum(name) => json!(name),
        Val::Option(None) => Value::Null,
        Val::Option(Some(v)) => to_json(v)?,
        Val::Result(Ok(v)) => named("ok", v)?,
        Val::Result(Err(v)) => named("err", v)?,
        Val::Flags(names) => json!(names),
        _ => {
            return mismatch("result", "a type without JSON form (resource, stream, future or map)");
        }
    })
}

fn number(v: f64) -> Value {
    match Number::from_f64(v) {
        Some(n) => Value::Number(n),
        None => json!(v.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each value's JSON is what the table at the top says.
    #[test]
    fn values_have_the_json_of_the_table() {
        let text = |s: &str| Val::String(s.into());
        for (value, expected) in [
            (Val::U64(u64::MAX), json!(u64::MAX)),
            (Val::S64(i64::MIN), json!(i64::MIN)),
            (Val::Float64(0.5), json!(0.5)),
            (Val::Float32(f32::INFINITY), json!("inf")),
            (Val::Char('é'), json!("é")),
            (Val::Tuple(vec![Val::Bool(true), text("a")]), json!([true, "a"])),
            (Val::List(vec![Val::U8(104), Val::U8(105)]), json!("aGk=")),
            (Val::List(vec![text("a")]), json!(["a"])),
            (Val::Record(vec![("x".into(), Val::U8(1))]), json!({"x": 1})),
            (Val::Variant("a".into(), None), json!("a")),
            (Val::Variant("b".into(), Some(Box::new(Val::U8(2)))), json!({"b": 2})),
            (Val::Option(None), Value::Null),
            (Val::Option(Some(Box::new(text("s")))), json!("s")),
            (Val::Result(Ok(None)), json!({"ok": null})),
            (Val::Result(Err(Some(Box::new(text("e"))))), json!({"err": "e"})),
            (Val::Flags(vec!["f".into()]), json!(["f"])),
        ] {
            assert_eq!(to_json(&value).unwrap(), expected);
        }
    }

    #[test]
    fn bytes_come_as_base64_within_their_bound() {
        assert_eq!(bytes("aGk=", "a").unwrap(), [Val::U8(104), Val::U8(105)]);
        assert!(bytes("aGk", "a").is_err());
        assert!(bytes(&"A".repeat(MAX_BYTES / 3 * 4 + 8), "a").is_err());
    }

    #[test]
    fn numbers_outside_of_their_type_are_refused_with_their_place() {
        for (ty, bad) in [
            (Type::U8, json!(256)),
            (Type::U8, json!(-1)),
            (Type::S8, json!(128)),
            (Type::U32, json!(1.5)),
            (Type::U64, json!(-1)),
            (Type::Float32, json!("many")),
            (Type::Char, json!("ab")),
            (Type::Bool, json!(0)),
            (Type::String, json!(null)),
        ] {
            let error = from_json(&ty, &bad, "args[0]").unwrap_err();
            assert_eq!(error.at, "args[0]", "{ty:?} from {bad}");
        }
        assert_eq!(from_json(&Type::U8, &json!(255), "a").unwrap(), Val::U8(255));
        assert_eq!(from_json(&Type::S8, &json!(-128), "a").unwrap(), Val::S8(-128));
    }
}

//! Numbers that the grammar compiler cannot take: it computes with 64-bit integers and negates them, which the least of them
//! does not survive (its recursion then never ends, and a full stack ends the process).

use super::refused;
use serde_json::Value;
use stockade_core::infer::InferError;

/// -2^63. Integers just above it become it on their way through a double.
const LEAST: f64 = i64::MIN as f64;

/// Refuses a schema with a number of -2^63 or below.
pub fn check_schema(schema: &Value) -> Result<(), InferError> {
    match schema {
        Value::Number(number) if number.as_f64().is_some_and(|x| x <= LEAST) => {
            Err(refused(&format!("{number} is too far below zero: numbers of a schema are above -2^63")))
        }
        Value::Array(items) => items.iter().try_for_each(check_schema),
        Value::Object(map) => map.values().try_for_each(check_schema),
        _ => Ok(()),
    }
}

/// The same for every schema inside of a Lark grammar, each of which begins after `%json`.
pub fn check_lark(text: &str) -> Result<(), InferError> {
    let schemas = text.split("%json").skip(1);
    schemas.filter_map(|rest| serde_json::Deserializer::from_str(rest).into_iter::<Value>().next()).try_for_each(
        // What is no JSON is an error of the compiler's to tell.
        |schema| schema.map_or(Ok(()), |schema| check_schema(&schema)),
    )
}

//! An interrupted turn as the item that asks for an approval.

use super::compose::json_text;
use super::request::OWN_SERVER;
use serde_json::{Value, json};
use stockade_core::event::Interruption;

/// The item names the interruption by its own id's key, and back.
pub fn approval_id(interruption: &str) -> String {
    format!("mcpr_{}", interruption.rsplit_once('_').map_or(interruption, |(_, key)| key))
}
pub fn interruption_id(approval: &str) -> String {
    format!("intr_{}", approval.strip_prefix("mcpr_").unwrap_or(approval))
}

/// `None` where it is no tool that waits: the response's `stockade.interruption` then asks alone.
pub fn request(told: &Interruption) -> Option<Value> {
    let (name, arguments) = asked(&told.request)?;
    Some(json!({"id": approval_id(told.id.as_ref()?), "type": "mcp_approval_request", "server_label": OWN_SERVER,
        "name": name, "arguments": json_text(arguments)}))
}

/// The tool and its arguments, from `{tool, arguments}` or from the `{calls: [{name, arguments}]}` of the shipped
/// orchestrators. One answer decides on several calls, so one item shows them all.
fn asked(request: &Value) -> Option<(String, &Value)> {
    if let Some(tool) = request["tool"].as_str() {
        return Some((tool.into(), &request["arguments"]));
    }
    let calls = &request["calls"];
    let names: Vec<&str> = calls.as_array()?.iter().map(|call| call["name"].as_str()).collect::<Option<_>>()?;
    match names.len() {
        0 => None,
        1 => Some((names[0].into(), &calls[0]["arguments"])),
        _ => Some((names.join(", "), calls)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_that_waits_is_shown() {
        let item = |asked: Value| {
            let told =
                Interruption { id: Some("intr_7".into()), question: "?".into(), request: asked, state: json!({}) };
            request(&told).map(|item| (item["name"].clone(), item["arguments"].clone()))
        };
        let pay = json!({"id": "1", "name": "pay", "arguments": {"amount": 3}});
        let send = json!({"id": "2", "name": "send", "arguments": {}});
        let one = Some((json!("pay"), json!(r#"{"amount":3}"#)));
        assert_eq!(item(json!({"tool": "pay", "arguments": {"amount": 3}})), one);
        assert_eq!(item(json!({"type": "tool-approval", "calls": [pay]})), one);
        let both = json!([pay, send]);
        assert_eq!(item(json!({"calls": both})), Some((json!("pay, send"), json!(both.to_string()))));
        for none in [json!({}), json!({"calls": []}), json!({"calls": [{"id": "1"}]}), json!("which one?")] {
            assert_eq!(item(none), None);
        }
    }
}

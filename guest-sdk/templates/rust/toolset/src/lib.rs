//! Two tools over one stretch of text: how long it is, and how often a word is in it.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Plugin {}

#[derive(Deserialize)]
struct Counted {
    text: String,
    #[serde(default)]
    word: String,
}

impl Toolset for Plugin {
    /// Bound as `tool/NAME`, they are called `NAME__length` and `NAME__count`.
    fn list(&self) -> Result<Vec<ToolSpec>> {
        let schema = |fields: Value, required: Value| json!({"type": "object", "properties": fields, "required": required});
        let text = json!({ "type": "string" });
        Ok(vec![
            ToolSpec::new("length", "Characters of a text.", &schema(json!({"text": text}), json!(["text"]))),
            ToolSpec::new(
                "count",
                "How often a word is in a text.",
                &schema(json!({"text": text, "word": text}), json!(["text", "word"])),
            ),
        ])
    }

    fn call(&self, name: &str, arguments: Value) -> Result<ToolOutput> {
        let count: fn(&Counted) -> usize = match name {
            "length" => |c| c.text.chars().count(),
            "count" => |c| c.text.split_whitespace().filter(|w| *w == c.word).count(),
            _ => return Err(Error::NotFound(format!("tool `{name}`"))),
        };
        Ok(match serde_json::from_value(arguments) {
            Ok(arguments) => ToolOutput::ok(count(&arguments).to_string()),
            Err(e) => ToolOutput::failed(format!("arguments: {e}")),
        })
    }
}

stockade_guest::export!(Plugin as toolset);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_answers_to_its_name() {
        let call = |name: &str, arguments: Value| testing::call_of::<Plugin>(json!({}), name, arguments);
        assert_eq!(call("length", json!({"text": "abc"})).unwrap().content, "3");
        assert_eq!(call("count", json!({"text": "a b a", "word": "a"})).unwrap().content, "2");
        assert!(call("count", json!({})).unwrap().is_error);
        assert!(call("other", json!({})).is_err());
    }
}

//! Prompts from the plugin's configuration: `{"prompts": {"greet": "Greet the user."}}`.

use std::collections::BTreeMap;
use stockade_guest::prelude::*;
use stockade_guest::prompt_store::*;

#[derive(Deserialize)]
struct Plugin {
    #[serde(default)]
    prompts: BTreeMap<String, String>,
}

impl Plugin {
    fn text(&self, name: &str) -> Result<&String> {
        self.prompts.get(name).ok_or_else(|| Error::NotFound(format!("prompt `{name}`")))
    }
}

fn read_only<T>() -> Result<T> {
    Err(Error::Unavailable("prompts are read from the configuration".into()))
}

impl PromptStore for Plugin {
    fn put(&self, _: String, _: Definition) -> Result<u32> {
        read_only()
    }
    fn get(&self, name: String, _: Selector) -> Result<Prompt> {
        let definition = Definition {
            template: Template::Text(self.text(&name)?.clone()),
            variables: Vec::new(),
            description: String::new(),
            metadata: "{}".into(),
        };
        Ok(Prompt { name, version: 1, definition, labels: Vec::new() })
    }
    fn names(&self, after: Option<String>, limit: u32) -> Result<Vec<String>> {
        let later = self.prompts.keys().filter(|name| after.as_ref().is_none_or(|after| *name > after));
        Ok(later.take(limit as usize).cloned().collect())
    }
    fn set_label(&self, _: String, _: String, _: u32, _: Option<u32>) -> Result<()> {
        read_only()
    }
    fn delete_label(&self, _: String, _: String) -> Result<()> {
        read_only()
    }
    fn render(&self, name: String, _: Selector, _variables: String) -> Result<Rendered> {
        Ok(Rendered { version: 1, content: Content::Text(self.text(&name)?.clone()) })
    }
}

stockade_guest::export!(Plugin as prompt_store);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_prompts_are_found() {
        let plugin = testing::plugin::<Plugin>(json!({"prompts": {"a": "A.", "b": "B."}})).unwrap();
        assert_eq!(plugin.names(Some("a".into()), 10).unwrap(), ["b"]);
        let rendered = plugin.render("a".into(), Selector::Latest, "{}".into()).unwrap();
        assert_eq!(rendered.content, Content::Text("A.".into()));
        assert!(plugin.get("c".into(), Selector::Latest).is_err());
    }
}

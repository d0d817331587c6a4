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

impl PromptStore for Plugin {
    fn get(&self, name: String, _: Selector) -> Result<Prompt> {
        let definition = Definition {
            format: Format::Simple,
            template: Template::Text(self.text(&name)?.clone()),
            variables: Vec::new(),
            partials: Vec::new(),
            strict: false,
            model_config: "{}".into(),
            description: String::new(),
            tags: Vec::new(),
            metadata: "{}".into(),
        };
        let version = Version {
            number: 1,
            digest: String::new(),
            parent: None,
            author: String::new(),
            message: String::new(),
            created: 0,
        };
        Ok(Prompt { name, version, definition, labels: Vec::new() })
    }
    fn find(&self, filter: Filter, after: Option<String>, limit: u32) -> Result<Vec<Summary>> {
        let later = self.prompts.keys().filter(|name| after.as_ref().is_none_or(|after| *name > after));
        let found = later.filter(|name| filter.text.as_ref().is_none_or(|text| name.contains(text)));
        let summary = |name: &String| Summary {
            name: name.clone(),
            latest: 1,
            description: String::new(),
            tags: Vec::new(),
            labels: Vec::new(),
        };
        Ok(found.take(limit as usize).map(summary).collect())
    }
    fn render(&self, name: String, _: Selector, _variables: String) -> Result<Rendered> {
        let content = Content::Text(self.text(&name)?.clone());
        Ok(Rendered { version: 1, digest: String::new(), exposure: None, content, model_config: "{}".into() })
    }
}

stockade_guest::export!(Plugin as prompt_store);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_prompts_are_found() {
        let plugin = testing::plugin::<Plugin>(json!({"prompts": {"a": "A.", "b": "B."}})).unwrap();
        let found = plugin.find(Filter { text: None, tag: None }, Some("a".into()), 10).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "b");
        let rendered = plugin.render("a".into(), Selector::Latest, "{}".into()).unwrap();
        assert_eq!(rendered.content, Content::Text("A.".into()));
        assert!(plugin.get("c".into(), Selector::Latest).is_err());
    }
}

//! Holds one prompt of any name, the text `Be brief.`.

use stockade_guest::prelude::*;
use stockade_guest::prompt_store::*;

#[derive(Deserialize)]
struct Guest {}

impl PromptStore for Guest {
    fn get(&self, name: String, _: Selector) -> Result<Prompt> {
        Err(Error::NotFound(name))
    }
    fn find(&self, _: Filter, _: Option<String>, _: u32) -> Result<Vec<Summary>> {
        Ok(Vec::new())
    }
    fn render(&self, _: String, _: Selector, _: String) -> Result<Rendered> {
        let content = Content::Text("Be brief.".into());
        Ok(Rendered { version: 1, digest: String::new(), exposure: None, content, model_config: "{}".into() })
    }
}
stockade_guest::export!(Guest as prompt_store);

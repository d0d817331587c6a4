//! Holds one prompt of any name, the text `Be brief.`.

use stockade_guest::prelude::*;
use stockade_guest::prompt_store::*;

#[derive(Deserialize)]
struct Guest {}

fn read_only<T>() -> Result<T> {
    Err(Error::Unavailable("this store is read-only".into()))
}

impl PromptStore for Guest {
    fn put(&self, _: String, _: Definition) -> Result<u32> {
        read_only()
    }
    fn get(&self, name: String, _: Selector) -> Result<Prompt> {
        Err(Error::NotFound(name))
    }
    fn names(&self, _: Option<String>, _: u32) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn set_label(&self, _: String, _: String, _: u32, _: Option<u32>) -> Result<()> {
        read_only()
    }
    fn delete_label(&self, _: String, _: String) -> Result<()> {
        read_only()
    }
    fn render(&self, _: String, _: Selector, _: String) -> Result<Rendered> {
        Ok(Rendered { version: 1, content: Content::Text("Be brief.".into()) })
    }
}
stockade_guest::export!(Guest as prompt_store);

//! A set of tools: one a name of its configuration; each answers with its name and arguments.

use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {
    #[serde(default)]
    names: Vec<String>,
}

impl Toolset for Guest {
    fn list(&self) -> Result<Vec<ToolSpec>> {
        Ok(self.names.iter().map(|name| ToolSpec::new(name, "", &json!({"type": "object"}))).collect())
    }

    fn call(&self, name: &str, arguments: Value) -> Result<ToolOutput> {
        if !self.names.iter().any(|n| n == name) {
            return Err(Error::NotFound(format!("tool `{name}`")));
        }
        Ok(ToolOutput::ok(format!("{name} {arguments}")))
    }
}
stockade_guest::export!(Guest as toolset);

//! A tool that fetches the URL that it is told and answers with the status, or the error's case.

use stockade_guest::http::Request;
use stockade_guest::prelude::*;

#[derive(Deserialize)]
struct Guest {}

#[derive(Deserialize)]
struct Arguments {
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

impl Tool for Guest {
    type Arguments = Arguments;

    fn describe(&self) -> ToolSpec {
        ToolSpec::new("fetches", "", &json!({"type": "object"}))
    }

    fn call(&self, arguments: Arguments) -> Result<ToolOutput> {
        let request = Request { headers: arguments.headers, ..Request::get(arguments.url) };
        Ok(match request.send() {
            Ok(response) => ToolOutput::ok(format!("{} {}", response.status, String::from_utf8_lossy(&response.body))),
            Err(error) => ToolOutput::failed(format!("{error:?}")),
        })
    }
}
stockade_guest::export!(Guest as tool);

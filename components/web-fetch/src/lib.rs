//! A tool that fetches a page and gives its text. Where it may go is the grant's business: the host checks every hop.

mod address;
mod html;

use stockade_guest::http::{Request, Response};
use stockade_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebFetch {
    #[serde(default = "twenty_thousand")]
    max_characters: usize,
    #[serde(default = "five")]
    max_redirects: u32,
}

fn twenty_thousand() -> usize {
    20_000
}
fn five() -> u32 {
    5
}

const ACCEPTED: &str = "text/html, text/plain;q=0.9, application/json;q=0.9, text/*;q=0.8";

#[derive(Deserialize)]
struct Arguments {
    url: String,
}

impl Tool for WebFetch {
    type Arguments = Arguments;

    fn describe(&self) -> ToolSpec {
        let parameters = json!({
            "type": "object",
            "properties": {
                "url": { "type": "string", "description": "An https address, for example https://example.org/page" },
            },
            "required": ["url"],
            "additionalProperties": false,
        });
        ToolSpec::new("web_fetch", "Fetches a web page and returns its text.", &parameters)
    }

    fn call(&self, arguments: Arguments) -> Result<ToolOutput> {
        let mut url = arguments.url.trim().to_string();
        for _ in 0..=self.max_redirects {
            let response = match Request::get(&url).header("accept", ACCEPTED).send() {
                Ok(response) => response,
                Err(error) => return Ok(ToolOutput::failed(told(&url, error))),
            };
            match (response.status, response.header("location")) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => url = address::join(&url, location),
                _ => return Ok(self.read(&url, &response)),
            }
        }
        Ok(ToolOutput::failed(format!("more than {} redirects", self.max_redirects)))
    }
}

impl WebFetch {
    fn read(&self, url: &str, response: &Response) -> ToolOutput {
        let media = response.header("content-type").unwrap_or("text/plain").to_ascii_lowercase();
        let kind = media.split(';').next().unwrap_or_default().trim();
        let textual = kind.starts_with("text/") || ["json", "xml", "javascript"].iter().any(|k| kind.ends_with(k));
        if !textual {
            let size = response.body.len();
            return ToolOutput::failed(format!(
                "{url} is {kind} of {size} bytes (status {}), not text",
                response.status
            ));
        }
        let text = decoded(&response.body, &media);
        let text =
            if kind == "text/html" || kind == "application/xhtml+xml" { html::to_text(&text, url) } else { text };
        let text = self.cut(text.trim());
        if response.is_success() {
            ToolOutput::ok(format!("{url}\n\n{text}"))
        } else {
            ToolOutput::failed(format!("{url} answered with status {}\n\n{text}", response.status))
        }
    }

    fn cut(&self, text: &str) -> String {
        match text.char_indices().nth(self.max_characters) {
            None => text.into(),
            Some((at, _)) => format!("{}\n\n[cut after {} characters]", &text[..at], self.max_characters),
        }
    }
}

/// Text in UTF-8 unless the server says that it is one of the old western encodings.
fn decoded(bytes: &[u8], media: &str) -> String {
    let western = ["iso-8859-1", "latin1", "windows-1252"].iter().any(|name| media.contains(name));
    if western { bytes.iter().map(|&b| char::from(b)).collect() } else { String::from_utf8_lossy(bytes).into_owned() }
}

/// An error in words that the model can act on.
fn told(url: &str, error: Error) -> String {
    match error {
        Error::Denied(what) => format!("{url} may not be fetched: {what} is not granted"),
        Error::Timeout => format!("{url} did not answer in time"),
        Error::Invalid(why) | Error::TooLarge(why) | Error::Other(why) => format!("{url}: {why}"),
        other => format!("{url}: {other}"),
    }
}

stockade_guest::export!(WebFetch as tool);

#[cfg(test)]
mod tests;

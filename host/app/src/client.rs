//! The HTTP client of the commands that talk to a server.

use crate::cli::Connection;
use crate::credentials;
use crate::failure::{Exit, Failure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

/// Longest answer that a command reads whole.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

pub struct Client {
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
    tenant: Option<String>,
}

/// What a request carries.
pub enum Body<'a> {
    None,
    Json(&'a Value),
    Wasm(&'a [u8]),
    /// Of this media type.
    Bytes(&'a str, &'a [u8]),
}

impl Client {
    /// Flag over environment over the credentials file: the server that was started here last.
    pub fn new(connection: &Connection) -> Self {
        let stored = credentials::read();
        let url = connection.url.clone().or_else(|| stored.first().map(|server| server.url.clone()));
        let url = url.unwrap_or_else(|| "http://127.0.0.1:8321".into());
        // A stored key belongs to its server and goes to no other.
        let same = |known: &str| known.trim_end_matches('/') == url.trim_end_matches('/');
        let stored_key = stored.into_iter().find(|server| same(&server.url)).and_then(|server| server.key);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .max_redirects(0)
            .build()
            .new_agent();
        Self {
            agent,
            url: url.trim_end_matches('/').to_string(),
            key: connection.key.clone().or(stored_key),
            tenant: connection.tenant.clone(),
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call("GET", path, Body::None)
    }

    /// Sends a request and reads the JSON answer; an error answer becomes its [`Failure`].
    pub fn call(&self, method: &str, path: &str, body: Body<'_>) -> Result<Value, Failure> {
        self.call_with(method, path, &[], body)
    }

    pub fn call_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> Result<Value, Failure> {
        let mut response = self.send(method, path, headers, body)?;
        let status = response.status().as_u16();
        let text = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .read_to_string()
            .map_err(|e| Failure::new(Exit::Failed, format!("{}{path}: {e}", self.url)))?;
        let value: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        if status < 300 { Ok(value) } else { Err(refusal(status, value)) }
    }

    /// Sends a request whose answer is a stream of server-sent events and hands over each event's data.
    pub fn events(
        &self,
        path: &str,
        body: &Value,
        mut on_data: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut response = self.send("POST", path, &[], Body::Json(body))?;
        let status = response.status().as_u16();
        if status >= 300 {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            return Err(refusal(status, serde_json::from_str(&text).unwrap_or(Value::String(text))));
        }
        for line in BufReader::new(response.body_mut().as_reader()).lines() {
            let line = line.map_err(|e| Failure::new(Exit::Failed, format!("the stream broke off: {e}")))?;
            if let Some(data) = line.strip_prefix("data:") {
                on_data(data.trim_start())?;
            }
        }
        Ok(())
    }

    /// Follows a stream of server-sent events after the one with the number `after`: each event's name and data.
    pub fn follow(
        &self,
        path: &str,
        after: u64,
        mut on_event: impl FnMut(&str, &str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let after = after.to_string();
        let mut response = self.send("GET", path, &[("last-event-id", &after)], Body::None)?;
        let status = response.status().as_u16();
        if status >= 300 {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            return Err(refusal(status, serde_json::from_str(&text).unwrap_or(Value::String(text))));
        }
        let mut name = String::new();
        for line in BufReader::new(response.body_mut().as_reader()).lines() {
            let line = line.map_err(|e| Failure::new(Exit::Failed, format!("the stream broke off: {e}")))?;
            if let Some(given) = line.strip_prefix("event:") {
                name = given.trim().into();
            } else if let Some(data) = line.strip_prefix("data:") {
                on_event(&name, data.trim_start())?;
            }
        }
        Ok(())
    }

    /// Uploads a file as OpenAI's form has it, and answers with its record.
    pub fn upload(&self, file: &Path, purpose: &str) -> Result<Value, Failure> {
        let data = std::fs::read(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().replace(['"', '\r', '\n'], "_");
        let boundary = format!("stockade-{:016x}", getrandom::u64().unwrap_or_default());
        let mut form = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--{boundary}\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        form.extend(data);
        form.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
        let media = format!("multipart/form-data; boundary={boundary}");
        self.call("POST", "/v1/files", Body::Bytes(&media, &form))
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("stockade-tenant", tenant);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bad = |e: ureq::http::Error| Failure::usage(format!("{}{path}: {e}", self.url));
        let sent = match body {
            Body::None => self.agent.run(request.body(()).map_err(bad)?),
            Body::Json(value) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(value.to_string()).map_err(bad)?)
            }
            Body::Bytes(media, bytes) => {
                self.agent.run(request.header("content-type", media).body(bytes).map_err(bad)?)
            }
            Body::Wasm(bytes) => {
                let request = request.header("content-type", "application/wasm");
                self.agent.run(request.body(bytes).map_err(bad)?)
            }
        };
        sent.map_err(|e| self.transport(&e))
    }

    fn transport(&self, error: &ureq::Error) -> Failure {
        let exit = match error {
            ureq::Error::Io(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::HostNotFound
            | ureq::Error::Timeout(_) => Exit::NoServer,
            ureq::Error::BadUri(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        let hint = if exit == Exit::NoServer { "; start one with `stockade serve` or name it with --url" } else { "" };
        Failure::new(exit, format!("no answer from {}: {error}{hint}", self.url))
    }
}

fn refusal(status: u16, document: Value) -> Failure {
    let exit = match status {
        404 => Exit::NotFound,
        400 | 405 => Exit::Usage,
        401 | 403 | 409 | 412 | 413 | 422 | 429 => Exit::Refused,
        _ => Exit::Failed,
    };
    // Problem documents have `detail`, OpenAI's shape has `error.message`.
    let text = document["detail"].as_str().or(document["error"]["message"].as_str()).or(document["title"].as_str());
    let code = document["code"].as_str().or(document["error"]["code"].as_str());
    let mut message = text.map_or_else(|| format!("the server answered {status}"), str::to_string);
    if let Some(code) = code {
        message = format!("{message} ({code})");
    }
    for reason in document["reasons"].as_array().into_iter().flatten() {
        let part = |key: &str| reason[key].as_str().unwrap_or_default().to_string();
        message += &format!("\n  {}: found {}, expected {}", part("at"), part("found"), part("expected"));
    }
    Failure { exit, message, document: Some(document) }
}

/// A path segment with everything percent-encoded that is not plain.
pub fn segment(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes().map(|b| if keep(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn refusals_map_to_stable_exit_codes_and_name_every_reason() {
        for (status, exit) in
            [(404, Exit::NotFound), (401, Exit::Refused), (422, Exit::Refused), (400, Exit::Usage), (500, Exit::Failed)]
        {
            assert_eq!(refusal(status, Value::Null).exit, exit, "{status}");
        }
        let document = json!({"detail": "not a component", "code": "invalid_component",
            "reasons": [{"at": "import x", "found": "nothing", "expected": "a function"}]});
        assert_eq!(
            refusal(422, document).message,
            "not a component (invalid_component)\n  import x: found nothing, expected a function"
        );
    }

    #[test]
    fn path_segments_cannot_change_the_path() {
        assert_eq!(segment("tool/echo"), "tool%2Fecho");
        assert_eq!(segment("../x?y#z"), "..%2Fx%3Fy%23z");
    }
}

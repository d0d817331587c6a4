//! One session with a server: initialization, requests, the end. Source: Model Context Protocol 2025-06-18, "Streamable
//! HTTP".

use crate::{Mcp, sse};
use std::fmt;
use stockade_guest::http::{Request, Response};
use stockade_guest::prelude::*;
use stockade_guest::secrets;

/// The protocol that is asked for; a server may choose another, which is then kept to.
const PROTOCOL: &str = "2025-06-18";
/// Most bytes of a server's error that are passed on.
const MAX_COMPLAINT_BYTES: usize = 500;

pub struct Session<'a> {
    mcp: &'a Mcp,
    token: Option<String>,
    id: Option<String>,
    protocol: Option<String>,
    requests: u64,
}

/// The server's own refusal of a request.
#[derive(Debug)]
pub struct Refusal {
    code: i64,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl<'a> Session<'a> {
    pub fn open(mcp: &'a Mcp) -> Result<Self> {
        let token = mcp.secret.as_deref().map(secrets::get).transpose()?;
        let mut session = Self { mcp, token, id: None, protocol: None, requests: 0 };
        let params = json!({
            "protocolVersion": PROTOCOL,
            "capabilities": {},
            "clientInfo": {"name": "stockade", "version": env!("CARGO_PKG_VERSION")},
        });
        let (response, message) = session.exchange("initialize", params)?;
        session.id = response.header("mcp-session-id").map(str::to_string);
        let result = outcome(message)?.map_err(|e| Error::Other(format!("the server does not begin: {e}")))?;
        session.protocol = result["protocolVersion"].as_str().map(str::to_string);
        session.tell("notifications/initialized")?;
        Ok(session)
    }

    /// A request: its result or the server's refusal.
    pub fn ask(&mut self, method: &str, params: Value) -> Result<Result<Value, Refusal>> {
        let (_, message) = self.exchange(method, params)?;
        outcome(message)
    }

    /// Ends the session where the server keeps one; a server that does not care is no error.
    pub fn close(self) {
        if self.id.is_some() {
            let request = Request { method: "DELETE".into(), ..self.request(None) };
            let _ = request.send();
        }
    }

    fn tell(&self, method: &str) -> Result<()> {
        let response = self.request(Some(&json!({"jsonrpc": "2.0", "method": method}))).send()?;
        if response.is_success() { Ok(()) } else { Err(complaint(&response)) }
    }

    fn exchange(&mut self, method: &str, params: Value) -> Result<(Response, Value)> {
        self.requests += 1;
        let id = self.requests;
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let response = self.request(Some(&message)).send()?;
        if !response.is_success() {
            return Err(complaint(&response));
        }
        let text = std::str::from_utf8(&response.body).map_err(|_| Error::Other("the answer is not UTF-8".into()))?;
        let stream = response.header("content-type").is_some_and(|t| t.trim_start().starts_with("text/event-stream"));
        let texts = if stream { sse::events(text) } else { vec![text.to_string()] };
        // A stream may carry notifications and requests of the server's before the answer.
        let messages = texts.iter().filter_map(|t| serde_json::from_str::<Value>(t).ok());
        let answer = messages.flat_map(unbatched).find(|m| m["id"] == id && m.get("method").is_none());
        match answer {
            Some(answer) => Ok((response, answer)),
            None => Err(Error::Other(format!("the server did not answer `{method}`"))),
        }
    }

    fn request(&self, message: Option<&Value>) -> Request {
        let mut request = match message {
            Some(message) => Request::post_json(&self.mcp.url, message),
            None => Request::get(&self.mcp.url),
        };
        request.timeout_ms = Some(self.mcp.timeout_ms);
        request = request.header("accept", "application/json, text/event-stream");
        for (name, value) in &self.mcp.headers {
            request = request.header(name, value);
        }
        let own = [
            ("mcp-session-id", self.id.clone()),
            ("mcp-protocol-version", self.protocol.clone()),
            ("authorization", self.token.as_ref().map(|token| format!("Bearer {token}"))),
        ];
        own.into_iter().fold(request, |request, (name, value)| match value {
            Some(value) => request.header(name, value),
            None => request,
        })
    }
}

/// The messages of a batch, or the one.
fn unbatched(message: Value) -> Vec<Value> {
    match message {
        Value::Array(all) => all,
        one => vec![one],
    }
}

fn outcome(mut message: Value) -> Result<Result<Value, Refusal>> {
    if let Some(error) = message.get("error") {
        let text = error["message"].as_str().unwrap_or("refused");
        let message = text[..text.floor_char_boundary(MAX_COMPLAINT_BYTES)].to_string();
        return Ok(Err(Refusal { code: error["code"].as_i64().unwrap_or_default(), message }));
    }
    match message["result"].take() {
        Value::Null => Err(Error::Other("the server's answer has neither result nor error".into())),
        result => Ok(Ok(result)),
    }
}

/// A response that is no success, as an error. The token is never in it: the server's text is all that is passed on.
fn complaint(response: &Response) -> Error {
    let text = String::from_utf8_lossy(&response.body);
    let text = text[..text.floor_char_boundary(MAX_COMPLAINT_BYTES)].trim();
    match response.status {
        401 | 403 => Error::Denied(format!("the MCP server answers {}: {text}", response.status)),
        404 => Error::NotFound(format!("the MCP server answers 404: {text}")),
        429 | 503 => Error::Overloaded,
        status => Error::Other(format!("the MCP server answers {status}: {text}")),
    }
}

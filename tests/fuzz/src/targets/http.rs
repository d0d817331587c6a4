//! What comes over the network: URLs that guests reach for, and requests of clients to all routes.

#[path = "../../../../host/gateway/tests/gateway/fakes.rs"]
mod fakes;

use crate::Target;
use axum::body::Body;
use axum::http::Request;
use fakes::{ADMIN, Host};
use serde_json::json;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stockade_core::http::Target as Url;
use stockade_gateway::Settings;
use tokio::runtime::Runtime;

const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1e999",
    "\\ud800",
    "\\u0000",
    "\"model\":\"m\"",
    "\"model\":\"e\"",
    "\"stream\":true",
    "\"tools\":[",
    "\"role\":\"tool\"",
    "\"type\":\"image_url\"",
    "data:image/png;base64,AAAA",
    "\"n\":9999",
    "\"logprobs\":true",
    "\"input\":[[1,2]]",
    "\"metadata\":{}",
    "%2e%2e%2f",
    "%ff",
    "?limit=-1&after=x",
    "\r\n",
    "\u{1f600}",
    "POST ",
    "PUT ",
    "DELETE ",
    "PATCH ",
    "/v1/",
    "/stockade/v1/",
];

/// A URL; what is read and written again reads the same.
pub const URL: Target = Target {
    name: "url",
    run: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(url) = Url::parse(text) else { return };
        let written = url.to_string();
        match Url::parse(&written) {
            Ok(again) => assert_eq!(again.to_string(), written),
            Err(e) => panic!("{written:?} is what was read, and is refused: {e}"),
        }
        let _ =
            (url.address(), url.origin(), url.reach(&["*".into(), "*.example".into(), "http://127.0.0.1:9000".into()]));
    },
    seeds: || {
        [
            "https://example.com/a?b=c#d",
            "http://10.0.0.5:9000/",
            "https://[::1]:443/x",
            "https://xn--nxasmq6b/",
            "http://0x7f.1/",
        ]
        .map(|s| s.as_bytes().to_vec())
        .to_vec()
    },
    words: &[
        "@",
        ":",
        "//",
        "[",
        "]",
        "%00",
        "%2f",
        "..",
        "127.1",
        "::ffff:10.0.0.1",
        "#",
        "?",
        "\\",
        "\t",
        "\u{ff0e}",
        "localhost",
    ],
};

/// A method, a path and a JSON body after the first line's end.
pub const REQUEST: Target = Target {
    name: "request",
    run: |bytes| {
        let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
        let (head, body) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
        let Some((method, path)) = std::str::from_utf8(head).ok().and_then(|head| head.split_once(' ')) else { return };
        send(method, path, "application/json", body);
    },
    seeds: requests,
    words: WORDS,
};

/// The body of a file upload.
pub const FORM: Target = Target {
    name: "form",
    run: |bytes| send("POST", "/v1/files", "multipart/form-data; boundary=cut", bytes),
    seeds: || {
        let part = |name: &str, more: &str, body: &str| {
            format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{body}\r\n")
        };
        let file = part("file", "; filename=\"a.txt\"\r\nContent-Type: text/plain", "some text");
        let purpose = part("purpose", "", "assistants");
        let expires = part("expires_after[anchor]", "", "created_at") + &part("expires_after[seconds]", "", "3600");
        [format!("{purpose}{file}--cut--\r\n"), format!("{file}{purpose}{expires}--cut--\r\n"), "--cut--\r\n".into()]
            .map(String::into_bytes)
            .to_vec()
    },
    words: &[
        "--cut",
        "--cut--",
        "\r\n",
        "\r\n\r\n",
        "Content-Disposition: form-data; name=",
        "\"file\"",
        "; filename=\"",
        "filename*=UTF-8''%ff",
        "Content-Type: ",
        "Content-Transfer-Encoding: base64",
        "\0",
        "\"",
    ],
};

fn requests() -> Vec<Vec<u8>> {
    let message = json!([{"role": "user", "content": "Hello"}]);
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let bodies = [
        ("POST /v1/chat/completions", json!({"model": "m", "messages": message, "temperature": 0.5, "stop": ["x"]})),
        (
            "POST /v1/chat/completions",
            json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": [
            {"role": "system", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": null, "tool_calls":
            [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": "r"}], "tools": [tool], "tool_choice": "auto",
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}}),
        ),
        (
            "POST /v1/completions",
            json!({"model": "m", "prompt": ["a", "b"], "max_tokens": 3, "logprobs": 2, "echo": true}),
        ),
        (
            "POST /v1/embeddings",
            json!({"model": "e", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 2}),
        ),
        (
            "POST /v1/responses",
            json!({"model": "m", "input": [{"type": "message", "role": "user", "content":
            [{"type": "input_text", "text": "a"}]}], "instructions": "b", "store": true, "stream": true}),
        ),
        (
            "POST /v1/conversations",
            json!({"items": [{"type": "message", "role": "user", "content": "x"}], "metadata": {"a": "b"}}),
        ),
        ("POST /v1/moderations", json!({"input": ["a", "b"], "model": "word"})),
        ("POST /v1/safety/run-shield", json!({"shield_id": "word", "messages": message, "params": {}})),
        ("POST /v1/agents", json!({"agent_config": {"model": "m", "instructions": "x", "toolgroups": []}})),
        (
            "POST /v1/assistants",
            json!({"name": "a", "model": "m", "instructions": "x", "tools": ["echo"], "limits": {"turns": 2}}),
        ),
        (
            "POST /v1/toolgroups",
            json!({"toolgroup_id": "mcp::a", "provider_id": "x", "mcp_endpoint": {"uri": "https://a.example"}}),
        ),
        ("POST /v1/tool-runtime/invoke", json!({"tool_name": "echo", "kwargs": {"a": 1}})),
        (
            "POST /v1/vector_stores",
            json!({"name": "v", "file_ids": [], "expires_after": {"anchor": "last_active_at", "days": 1}}),
        ),
        ("POST /v1/prompts", json!({"prompt": "Hi {{name}}", "variables": ["name"]})),
        (
            "POST /mcp",
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}),
        ),
        ("POST /tokenize", json!({"model": "m", "prompt": "a b", "add_special_tokens": true})),
        ("POST /detokenize", json!({"model": "m", "tokens": [1, 2, 300]})),
        ("POST /stockade/v1/prompts/render", json!({"template": "Hi {{name}}", "variables": {"name": "x"}})),
        ("POST /stockade/v1/tenants", json!({"name": "t", "quotas": {"tokens_per_day": 5}})),
        ("POST /stockade/v1/keys", json!({"tenant": "default", "name": "k", "scopes": ["inference"], "expires_at": 1})),
        ("PUT /stockade/v1/components/word/grants", json!({"models": ["*"], "limits": {"cpu_ms": 5}})),
        (
            "PUT /stockade/v1/bindings/shield.input",
            json!({"entries": [{"component": "word", "version": "1", "mode": "observe"}]}),
        ),
        ("PUT /stockade/v1/state/b/k", json!([1, "x", null])),
        ("PUT /stockade/v1/secrets/s", json!({"value": "x"})),
        ("POST /stockade/v1/components/word/versions/1/invoke", json!({"function": "check", "args": [1]})),
    ];
    let mut seeds: Vec<Vec<u8>> = bodies.iter().map(|(head, body)| format!("{head}\n{body}").into_bytes()).collect();
    for path in
        ["/v1/models?limit=5&after=m", "/stockade/v1/traces", "/openapi.json", "/stockade/v1/usage?day=2025-01-01"]
    {
        seeds.push(format!("GET {path}\n").into_bytes());
    }
    seeds
}

/// Panics of all threads; requests run on some of them.
static PANICS: AtomicU64 = AtomicU64::new(0);

static SERVER: LazyLock<(Runtime, Host)> = LazyLock::new(|| {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        before(info);
    }));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let settings = Settings { request_timeout: Duration::from_secs(2), ..Settings::default() };
    let host = runtime.block_on(async {
        let host = Host::with(settings).await;
        host.bind("tool/echo", "echo", "tool", json!({})).await;
        host.upload(ADMIN, "word", "shield").await;
        host.upload(ADMIN, "mcp", "toolset").await;
        host
    });
    (runtime, host)
});

/// One request by the operator: whatever it is, it is answered in time, and never with a failure of the host's own.
fn send(method: &str, path: &str, media_type: &str, body: &[u8]) {
    let (runtime, host) = &*SERVER;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("content-type", media_type)
        .body(Body::from(body.to_vec()));
    let Ok(request) = request else { return };
    if request.uri().path().is_empty() || request.uri().authority().is_some() {
        return;
    }
    let before = PANICS.load(Ordering::SeqCst);
    let reply = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), host.send(request)).await });
    let reply = reply.expect("every request is answered in time");
    assert_eq!(PANICS.load(Ordering::SeqCst), before, "a panic under {method} {path}");
    assert_ne!(reply.status, 500, "{method} {path}: {}", String::from_utf8_lossy(&reply.bytes));
}

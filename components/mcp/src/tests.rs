use super::*;
use stockade_guest::http::{Request, Response};
use stockade_guest::testing::{Host, call_of, plugin};

fn config() -> Value {
    json!({"url": "https://mcp.example/mcp", "secret": "token", "headers": {"x-team": "a"}})
}

fn reply(status: u16, kind: &str, body: String) -> Response {
    let headers = vec![("content-type".into(), kind.into()), ("mcp-session-id".into(), "s1".into())];
    Response { status, headers, body: body.into() }
}

fn message(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap_or_default()
}

/// A server that answers `initialize` and leaves the rest to `answer`: the message's `result` or `error`.
fn server(stream: bool, answer: impl Fn(&str, &Value) -> Value + 'static) -> Host {
    Host::new().secret("token", "hunter2").network(move |request| {
        let asked = message(request);
        let method = asked["method"].as_str().unwrap_or_default();
        if request.method == "DELETE" || method.starts_with("notifications/") {
            return Ok(reply(202, "text/plain", String::new()));
        }
        let mut told = match method {
            "initialize" => json!({"result": {"protocolVersion": "2025-03-26", "capabilities": {}}}),
            other => answer(other, &asked["params"]),
        };
        told["jsonrpc"] = json!("2.0");
        told["id"] = asked["id"].clone();
        Ok(if stream {
            let notification = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}});
            let question = json!({"jsonrpc": "2.0", "id": asked["id"], "method": "ping"});
            let events = [notification, question, told].map(|m| format!("event: message\r\ndata: {m}\r\n\r\n"));
            reply(200, "text/event-stream", events.concat())
        } else {
            reply(200, "application/json", told.to_string())
        })
    })
}

fn two_tools(method: &str, params: &Value) -> Value {
    match (method, params["cursor"].as_str()) {
        ("tools/list", None) => json!({"result": {
            "tools": [{"name": "add", "description": "Adds", "inputSchema": {"type": "object", "required": ["a"]}}],
            "nextCursor": "2"}}),
        ("tools/list", Some("2")) => json!({"result": {"tools": [{"name": "fs.read", "title": "Reads"}]}}),
        ("tools/call", _) => json!({"result": {"content": [{"type": "text", "text": params.to_string()}]}}),
        _ => json!({"error": {"code": -32601, "message": "no such method"}}),
    }
}

#[test]
fn tools_are_listed_over_pages_by_json_and_by_stream() {
    for stream in [false, true] {
        let host = server(stream, two_tools);
        let specs = plugin::<Mcp>(config()).unwrap().list().unwrap();
        let names: Vec<_> = specs.iter().map(|s| (s.name.as_str(), s.description.as_str())).collect();
        assert_eq!(names, [("add", "Adds"), ("fs_x2e_read", "Reads")]);
        assert!(specs[0].parameters.contains("required"), "{:?}", specs[0]);

        let asked = host.fetched();
        let methods: Vec<_> = asked.iter().map(|r| message(r)["method"].as_str().unwrap_or("-").to_string()).collect();
        assert_eq!(methods, ["initialize", "notifications/initialized", "tools/list", "tools/list", "-"]);
        let header = |r: &Request, name: &str| r.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        assert_eq!(header(&asked[0], "mcp-session-id"), None);
        for later in &asked[1..] {
            assert_eq!(header(later, "mcp-session-id").as_deref(), Some("s1"));
            assert_eq!(header(later, "mcp-protocol-version").as_deref(), Some("2025-03-26"));
        }
        for each in &asked {
            assert_eq!(header(each, "authorization").as_deref(), Some("Bearer hunter2"));
            assert_eq!(header(each, "x-team").as_deref(), Some("a"));
        }
        assert_eq!(asked.last().unwrap().method, "DELETE");
    }
}

#[test]
fn a_tool_is_called_by_the_servers_own_name() {
    let _host = server(true, two_tools);
    let answer = call_of::<Mcp>(config(), "fs_x2e_read", json!({"path": "x"})).unwrap();
    assert_eq!(answer, ToolOutput::ok(r#"{"arguments":{"path":"x"},"name":"fs.read"}"#));
}

#[test]
fn only_allowed_tools_are_seen_and_called() {
    let host = server(false, two_tools);
    let mut config = config();
    config["tools"] = json!(["add"]);
    assert_eq!(plugin::<Mcp>(config.clone()).unwrap().list().unwrap().len(), 1);
    let before = host.fetched().len();
    assert!(matches!(call_of::<Mcp>(config, "fs_x2e_read", json!({})), Err(Error::NotFound(_))));
    assert_eq!(host.fetched().len(), before, "nothing was asked");
}

#[test]
fn every_kind_of_content_becomes_text() {
    let _host = server(false, |_, _| {
        json!({"result": {"isError": true, "content": [
            {"type": "text", "text": "a"},
            {"type": "image", "mimeType": "image/png", "data": "AAAA"},
            {"type": "resource", "resource": {"uri": "x:1", "text": "b"}},
            {"type": "resource_link", "name": "n", "uri": "x:2"},
            {"type": "new"}]}})
    });
    let answer = call_of::<Mcp>(config(), "t", json!({})).unwrap();
    assert_eq!(answer, ToolOutput::failed("a\n[image image/png, 3 bytes]\nb\n[n](x:2)\n[new]"));
    let _host = server(false, |_, _| json!({"result": {"structuredContent": {"x": 1}}}));
    assert_eq!(call_of::<Mcp>(config(), "t", json!({})).unwrap(), ToolOutput::ok(r#"{"x":1}"#));
}

#[test]
fn refusals_of_a_call_are_the_models_to_read_and_all_else_fails() {
    let _host = server(false, |_, _| json!({"error": {"code": -32602, "message": "Unknown tool: t"}}));
    assert_eq!(call_of::<Mcp>(config(), "t", json!({})).unwrap(), ToolOutput::failed("Unknown tool: t (code -32602)"));
    assert!(matches!(plugin::<Mcp>(config()).unwrap().list(), Err(Error::Other(_))));
    assert!(call_of::<Mcp>(config(), "t", json!([])).unwrap().is_error);

    type Check = fn(&Error) -> bool;
    let cases: [(u16, &str, Check); 6] = [
        (401, "no", |e| matches!(e, Error::Denied(_))),
        (404, "no", |e| matches!(e, Error::NotFound(_))),
        (503, "no", |e| matches!(e, Error::Overloaded)),
        (500, "no", |e| matches!(e, Error::Other(_))),
        (200, "<html>", |e| matches!(e, Error::Other(_))),
        (200, r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, |e| matches!(e, Error::Other(_))),
    ];
    for (status, body, right) in cases {
        let _host =
            Host::new().secret("token", "hunter2").network(move |_| Ok(reply(status, "application/json", body.into())));
        let error = plugin::<Mcp>(config()).unwrap().list().unwrap_err();
        assert!(right(&error), "{status} {body}: {error:?}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    Host::new().secret("token", "hunter2");
    assert!(matches!(plugin::<Mcp>(config()).unwrap().list(), Err(Error::Denied(_))));
    Host::new();
    assert!(matches!(plugin::<Mcp>(config()).unwrap().list(), Err(Error::NotFound(_))));
}

/// Beside the same in the sandbox: the host's `bench_components`.
#[test]
fn latency() {
    let config = json!({"url": "https://mcp.example/mcp"});
    testing::latency("mcp", || {
        let _host = server(false, |_, _| json!({"result": {"content": [{"type": "text", "text": "3"}]}}));
        let answer = call_of::<Mcp>(config.clone(), "add", json!({"a": 1, "b": 2})).unwrap();
        assert_eq!(answer, ToolOutput::ok("3"));
    });
}

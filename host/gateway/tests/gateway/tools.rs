//! Llama Stack's tool routes and the MCP server, over scripted tools.

use crate::fakes::*;
use serde_json::{Value, json};

/// A tenant with the tools `echo`, the set `mcp-wiki` of `add` and `fs`, and one that always fails.
async fn bound(host: &Host) -> String {
    let key = host.tenant("alice", &["inference", "components"]).await;
    host.upload(&key, "echo", "tool").await;
    host.upload(&key, "broken", "tool").await;
    host.upload(&key, "mcp", "toolset").await;
    for (role, component) in [("tool/echo", "echo"), ("tool/broken", "broken")] {
        let entries = json!({"entries": [{"component": component, "version": "1"}]});
        host.call(&key, "PUT", &format!("/stockade/v1/bindings/{role}"), &entries).await.expect(200);
    }
    let group = json!({"toolgroup_id": "mcp::wiki", "provider_id": "model-context-protocol",
        "mcp_endpoint": {"uri": "https://wiki.example/mcp"}, "args": {"names": ["add", "fs"], "secret": "wiki"}});
    host.call(&key, "POST", "/v1/toolgroups", &group).await.expect(200);
    key
}

#[tokio::test]
async fn a_registered_server_is_bound_granted_and_unbound() {
    let host = Host::new().await;
    let key = bound(&host).await;
    let get = async |path: &str| host.call(&key, "GET", path, &Value::Null).await;
    let group = get("/v1/toolgroups/mcp::wiki").await.expect(200);
    assert_eq!(group["identifier"], "mcp::wiki");
    assert_eq!(group["provider_id"], "mcp");
    assert_eq!(group["mcp_endpoint"]["uri"], "https://wiki.example/mcp");
    let binding = get("/stockade/v1/bindings/tool/mcp-wiki").await.expect(200);
    assert_eq!(binding["entries"][0]["config"]["url"], "https://wiki.example/mcp");
    let grants = get("/stockade/v1/components/mcp/grants").await.expect(200);
    assert_eq!((&grants["http"], &grants["secrets"]), (&json!(["wiki.example"]), &json!(["wiki"])));
    let listed = get("/v1/toolgroups").await.expect(200);
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|g| g["identifier"].clone()).collect();
    assert_eq!(ids, ["broken", "echo", "mcp::wiki"]);

    // The same again changes nothing; another group of the same bound name is refused.
    let again =
        json!({"toolgroup_id": "mcp::wiki", "provider_id": "x", "mcp_endpoint": {"uri": "https://wiki.example/2"}});
    host.call(&key, "POST", "/v1/toolgroups", &again).await.expect(200);
    let other = json!({"toolgroup_id": "mcp wiki", "provider_id": "x", "mcp_endpoint": {"uri": "https://b.example"}});
    host.call(&key, "POST", "/v1/toolgroups", &other).await.expect(409);
    host.call(&key, "DELETE", "/v1/toolgroups/mcp::wiki", &Value::Null).await.expect(204);
    assert_eq!(get("/v1/toolgroups/mcp::wiki").await.status, 404);
    assert_eq!(get("/stockade/v1/bindings/tool/mcp-wiki").await.status, 404);
}

#[tokio::test]
async fn what_a_server_was_granted_goes_with_the_last_group_that_needs_it() {
    let host = Host::new().await;
    let key = bound(&host).await;
    let granted = async || {
        let grants = host.call(&key, "GET", "/stockade/v1/components/mcp/grants", &Value::Null).await.expect(200);
        json!([grants["http"], grants["secrets"]])
    };
    let register = async |id: &str, uri: &str, secret: &str| {
        let group =
            json!({"toolgroup_id": id, "provider_id": "x", "mcp_endpoint": {"uri": uri}, "args": {"secret": secret}});
        host.call(&key, "POST", "/v1/toolgroups", &group).await.expect(200);
    };
    let remove =
        async |id: &str| host.call(&key, "DELETE", &format!("/v1/toolgroups/{id}"), &Value::Null).await.expect(204);
    register("mcp::same", "https://wiki.example/other", "own").await;
    register("mcp::else", "https://else.example/", "wiki").await;
    assert_eq!(granted().await, json!([["wiki.example", "else.example"], ["wiki", "own"]]));
    remove("mcp::wiki").await;
    assert_eq!(granted().await, json!([["wiki.example", "else.example"], ["wiki", "own"]]), "others need them");
    // A group that moves to another server leaves the first one alone.
    register("mcp::same", "https://moved.example/", "own").await;
    assert_eq!(granted().await, json!([["else.example", "moved.example"], ["wiki", "own"]]));
    remove("mcp::else").await;
    assert_eq!(granted().await, json!([["moved.example"], ["own"]]));
    let grants = json!({"http": ["moved.example", "*.example"], "secrets": ["*"]});
    host.call(&key, "PUT", "/stockade/v1/components/mcp/grants", &grants).await.expect(200);
    remove("mcp::same").await;
    assert_eq!(granted().await, json!([["*.example"], ["*"]]));
}

#[tokio::test]
async fn a_tenant_cannot_register_a_server_inside_the_hosts_networks() {
    let host = Host::new().await;
    let key = bound(&host).await;
    for uri in ["http://wiki.example/mcp", "https://127.0.0.1/", "http://169.254.169.254/", "https://[::1]/"] {
        let group = json!({"toolgroup_id": "inside", "provider_id": "x", "mcp_endpoint": {"uri": uri}});
        host.call(&key, "POST", "/v1/toolgroups", &group).await.expect(403);
    }
    for uri in ["", "file:///etc", "https://a@b/"] {
        let group = json!({"toolgroup_id": "inside", "provider_id": "x", "mcp_endpoint": {"uri": uri}});
        host.call(&key, "POST", "/v1/toolgroups", &group).await.expect(400);
    }
    // Nor grant it by hand.
    let grants = json!({"http": ["http://169.254.169.254"]});
    host.call(&key, "PUT", "/stockade/v1/components/mcp/grants", &grants).await.expect(403);
    let grants = json!({"http": ["wiki.example", "*.example.org"]});
    host.call(&key, "PUT", "/stockade/v1/components/mcp/grants", &grants).await.expect(200);
    let narrow = host.tenant("alice", &["inference"]).await;
    let group = json!({"toolgroup_id": "x", "provider_id": "echo"});
    host.call(&narrow, "POST", "/v1/toolgroups", &group).await.expect(403);
}

#[tokio::test]
async fn tools_are_listed_in_the_shape_of_both_clients() {
    let host = Host::new().await;
    let key = bound(&host).await;
    let names = async |path: &str| {
        let listed = host.call(&key, "GET", path, &Value::Null).await.expect(200);
        let names: Vec<String> =
            listed["data"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap().to_string()).collect();
        names
    };
    // The broken one is left out.
    assert_eq!(names("/v1/tool-runtime/list-tools").await, ["echo", "mcp-wiki__add", "mcp-wiki__fs"]);
    assert_eq!(names("/v1/tools?toolgroup_id=mcp::wiki").await, ["mcp-wiki__add", "mcp-wiki__fs"]);
    assert_eq!(names("/v1/tool-runtime/list-tools?tool_group_id=echo").await, ["echo"]);
    assert_eq!(names("/v1/tool-runtime/list-tools?mcp_endpoint[uri]=https://wiki.example/mcp").await.len(), 2);
    let tool = host.call(&key, "GET", "/v1/tools/mcp-wiki__add", &Value::Null).await.expect(200);
    let parameters = json!([
        {"name": "a", "parameter_type": "integer", "description": "A", "required": true, "default": null},
        {"name": "b", "parameter_type": "object", "description": "", "required": false, "default": 1},
    ]);
    assert_eq!(tool["parameters"], parameters);
    assert_eq!(tool["input_schema"]["required"], json!(["a"]));
    assert_eq!((&tool["identifier"], &tool["toolgroup_id"]), (&json!("mcp-wiki__add"), &json!("mcp::wiki")));
    for missing in ["/v1/tools/none", "/v1/tools?toolgroup_id=none", "/v1/tools?toolgroup_id=builtin::rag"] {
        host.call(&key, "GET", missing, &Value::Null).await.expect(404);
    }
    host.call(&key, "GET", "/v1/tools?toolgroup_id=broken", &Value::Null).await.expect(503);
}

#[tokio::test]
async fn tools_are_invoked_by_every_name_that_clients_know() {
    let host = Host::new().await;
    let key = bound(&host).await;
    let invoke = async |body: Value| host.call(&key, "POST", "/v1/tool-runtime/invoke", &body).await;
    for (name, role, tool) in [
        ("echo", "tool/echo", Value::Null),
        ("mcp-wiki__add", "tool/mcp-wiki", json!("add")),
        ("mcp_wiki__add", "tool/mcp-wiki", json!("add")),
        ("add", "tool/mcp-wiki", json!("add")),
    ] {
        let reply = invoke(json!({"tool_name": name, "kwargs": {"a": 1}, "authorization": "t"})).await.expect(200);
        let said: Value = serde_json::from_str(reply["content"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&said["role"], &said["tool"], &said["arguments"]),
            (&json!(role), &tool, &json!({"a": 1})),
            "{name}"
        );
        assert!(reply["error_message"].is_null());
        // A token of the caller's goes to MCP servers and to nobody else.
        let sent = if role == "tool/echo" { Value::Null } else { json!({"authorization": "Bearer t"}) };
        assert_eq!(said["headers"], sent, "{name}");
    }
    let failed = invoke(json!({"tool_name": "echo", "kwargs": {"fail": 1}})).await.expect(200);
    assert!(failed["error_message"].is_string() && failed["error_code"].is_number());
    invoke(json!({"tool_name": "none", "kwargs": {}})).await.expect(404);
    invoke(json!({"tool_name": "broken", "kwargs": {}})).await.expect(503);
    invoke(json!({"kwargs": {}})).await.expect(400);
}

#[tokio::test]
async fn the_tools_are_served_over_mcp() {
    let host = Host::new().await;
    let key = bound(&host).await;
    let ask = async |method: &str, params: Value| {
        let message = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let answer = host.call(&key, "POST", "/mcp", &message).await.expect(200);
        assert_eq!(answer["id"], 7);
        answer
    };
    let begun = ask("initialize", json!({"protocolVersion": "2025-03-26"})).await;
    assert_eq!(begun["result"]["protocolVersion"], "2025-03-26");
    let newer = ask("initialize", json!({"protocolVersion": "2099-01-01"})).await;
    assert_eq!(newer["result"]["protocolVersion"], "2025-11-25");
    let listed = ask("tools/list", json!({})).await;
    let tools = listed["result"]["tools"].as_array().unwrap();
    assert_eq!(
        tools.iter().map(|t| t["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["echo", "mcp-wiki__add", "mcp-wiki__fs"]
    );
    assert_eq!(tools[0]["inputSchema"]["type"], "object");
    let called = ask("tools/call", json!({"name": "mcp-wiki__add", "arguments": {"a": 1}})).await;
    assert_eq!(called["result"]["isError"], false);
    assert!(called["result"]["content"][0]["text"].as_str().unwrap().contains("tool/mcp-wiki"));
    let failed = ask("tools/call", json!({"name": "broken"})).await;
    assert_eq!(failed["result"]["isError"], true);
    for (method, params, code) in [
        ("tools/call", json!({"name": "none"}), -32602),
        ("tools/call", json!({"name": "echo", "arguments": 1}), -32602),
        ("tools/call", json!({}), -32602),
        ("server/discover", json!({}), -32601),
    ] {
        assert_eq!(ask(method, params).await["error"]["code"], code, "{method}");
    }
    let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(host.call(&key, "POST", "/mcp", &told).await.status, 202);
    assert_eq!(host.call(&key, "POST", "/mcp", &json!([])).await.expect(200)["error"]["code"], -32600);
    assert_eq!(host.call("sk-wrong", "POST", "/mcp", &told).await.status, 401);
    assert_eq!(host.call(&key, "GET", "/mcp", &Value::Null).await.status, 405);
}

#[tokio::test]
async fn a_call_that_a_shield_stands_against_is_refused_in_its_words() {
    let host = Host::new().await;
    host.bind("tool/pay", "refused", "tool", json!({})).await;
    let reply = host.post("/v1/tool-runtime/invoke", json!({"tool_name": "pay", "kwargs": {}})).await;
    let id = reply.header("stockade-trace");
    let refused = reply.expect(403);
    assert_eq!(refused["error"]["message"], "No.");
    assert_eq!(host.trace(&id).await["status"], "blocked");
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "pay", "arguments": {}}});
    let reply = host.post("/mcp", call).await;
    let id = reply.header("stockade-trace");
    let answer = reply.expect(200);
    assert_eq!(answer["result"], json!({"content": [{"type": "text", "text": "No."}], "isError": true}));
    assert_eq!(host.trace(&id).await["status"], "blocked");
}

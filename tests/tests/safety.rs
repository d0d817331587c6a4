//! Shields called by name, as Llama Stack's and OpenAI's clients call them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stockade_tests::{Client, Options, Server, component, scratch};

fn run(client: &Client, shield: &str, text: &str, params: Value) -> Result<Value> {
    let messages = json!([{"role": "user", "content": text}]);
    let body = json!({"shield_id": shield, "messages": messages, "params": params});
    Ok(client.post("/v1/safety/run-shield", &body)?.expect(200)?["violation"].clone())
}

#[test]
fn bound_held_and_shipped_shields_answer_by_name() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    admin.shipped("firewall")?;

    // Bound: the default tenant's own configuration masks cards. Parameters lie over it.
    let card = "my card is 4111 1111 1111 1111";
    let masked = run(&admin, "regex-shield", card, json!({}))?;
    ensure!(masked["violation_level"] == "warn" && masked["metadata"]["edited"][0] != card, "{masked}");
    let blocked = run(&admin, "regex-shield", card, json!({"pii_action": "block"}))?;
    ensure!(
        blocked["violation_level"] == "error" && blocked["metadata"]["violation_type"] == "pii.credit-card",
        "{blocked}"
    );
    ensure!(run(&admin, "regex-shield", "nothing here", json!({}))?.is_null());

    // A tenant that holds nothing still reaches what comes with the host, and nobody else's.
    let alice = admin.tenant_with_key("alice", &["inference", "components"])?;
    let blocked = run(&alice, "regex-shield", card, json!({"pii_action": "block"}))?;
    ensure!(blocked["violation_level"] == "error", "{blocked}");
    admin.push("house-rule", "1.0.0", &component("blocks_word"), &json!({}))?;
    let ask =
        json!({"shield_id": "house-rule", "messages": [{"role": "user", "content": "x"}], "params": {"word": "y"}});
    admin.post("/v1/safety/run-shield", &ask)?.expect(200)?;
    alice.post("/v1/safety/run-shield", &ask)?.expect(404)?;
    let wrong =
        json!({"shield_id": "regex-shield", "messages": [{"role": "user", "content": "x"}], "params": {"colour": 1}});
    ensure!(admin.post("/v1/safety/run-shield", &wrong)?.expect(400)?.to_string().contains("colour"));

    // A name of the tenant's own, with its own configuration.
    let shield = json!({"shield_id": "no-cards", "provider_shield_id": "regex-shield",
        "params": {"pii": ["credit-card"], "pii_action": "block"}});
    admin.post("/v1/shields", &shield)?.expect(200)?;
    ensure!(run(&admin, "no-cards", card, json!({}))?["violation_level"] == "error");
    let listed = admin.get("/v1/shields")?.expect(200)?;
    let names: Vec<&str> = listed["data"].as_array().unwrap().iter().filter_map(|s| s["identifier"].as_str()).collect();
    for name in ["firewall", "house-rule", "no-cards", "regex-shield"] {
        ensure!(names.contains(&name), "{name}: {names:?}");
    }
    ensure!(!names.contains(&"chat"), "{names:?}");
    admin.delete("/v1/shields/no-cards")?.expect(204)?;
    admin.get("/v1/shields/no-cards")?.expect(404)?;
    Ok(())
}

#[test]
fn a_firewall_calls_the_shields_that_are_bound_by_name() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let shield = json!({"shield_id": "cards", "provider_shield_id": "regex-shield",
        "params": {"pii": ["credit-card"], "pii_action": "block"}});
    admin.post("/v1/shields", &shield)?.expect(200)?;
    let version = admin.shipped("firewall")?;
    let policy = json!({"use_case": "none", "policy": {"user": ["hidden-ascii", "cards"], "assistant": ["cards"]}});
    admin.bind("shield.input", json!([{"component": "firewall", "version": version, "config": policy}]))?;
    admin.bind("shield.output", json!([{"component": "firewall", "version": version, "config": policy}]))?;

    let ask =
        |text: &str| json!({"model": "smollm2", "max_tokens": 8, "messages": [{"role": "user", "content": text}]});
    let blocked = admin.post("/v1/chat/completions", &ask("pay with 4111 1111 1111 1111"))?.expect(200)?;
    ensure!(blocked["choices"][0]["finish_reason"] == "content_filter", "{blocked}");
    let calm = admin.post("/v1/chat/completions", &ask("Say hello."))?;
    let trace = calm.header("stockade-trace").unwrap_or_default().to_string();
    let calm = calm.expect(200)?;
    ensure!(calm["choices"][0]["message"]["content"].as_str().is_some_and(|t| !t.is_empty()), "{calm}");
    // The trace names the firewall and the scanners it called.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let trace = admin.get(&format!("/stockade/v1/traces/{trace}"))?.expect(200)?;
    let roles: Vec<&str> = trace["components"].as_array().unwrap().iter().filter_map(|c| c["role"].as_str()).collect();
    ensure!(roles.contains(&"shield/cards") && roles.contains(&"shield.output"), "{roles:?}");

    // What a person should look at is let pass, and shown to who asks before.
    let scanner = json!({"scanner": "cards", "decision": "review"});
    let reviews = json!({"use_case": "none", "review": "allow", "policy": {"user": [scanner]}});
    admin.bind("shield.input", json!([{"component": "firewall", "version": version, "config": reviews}]))?;
    admin.bind("shield.output", json!([]))?;
    let passed = admin.post("/v1/chat/completions", &ask("pay with 4111 1111 1111 1111"))?.expect(200)?;
    ensure!(passed["choices"][0]["finish_reason"] != "content_filter", "{passed}");
    ensure!(run(&admin, "firewall", "pay with 4111 1111 1111 1111", json!({}))?.is_null());
    let shown = run(&admin, "firewall", "pay with 4111 1111 1111 1111", json!({"review": "block"}))?;
    ensure!(shown["metadata"]["decision"] == "human_in_the_loop_required", "{shown}");

    // A scanner that is not bound fails closed.
    let policy = json!({"use_case": "none", "policy": {"user": ["nobody"]}});
    admin.bind("shield.input", json!([{"component": "firewall", "version": version, "config": policy}]))?;
    let closed = admin.post("/v1/chat/completions", &ask("Say hello."))?.expect(200)?;
    ensure!(closed["choices"][0]["finish_reason"] == "content_filter", "{closed}");
    Ok(())
}

#[test]
fn moderations_come_in_openais_shape() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let admin = server.admin();
    let shield = json!({"shield_id": "rules", "provider_shield_id": "regex-shield",
        "params": {"patterns": [{"name": "hate", "regex": "(?i)ugly word"}]}});
    admin.post("/v1/shields", &shield)?.expect(200)?;
    let body = json!({"model": "rules", "input": ["an ugly word", "a fine word"]});
    let answer = admin.post("/v1/moderations", &body)?.expect(200)?;
    let results = answer["results"].as_array().unwrap();
    ensure!(results[0]["flagged"] == true && results[0]["categories"]["hate"] == true, "{answer}");
    ensure!(results[1]["flagged"] == false && results[1]["categories"]["violence"] == false, "{answer}");
    Ok(())
}

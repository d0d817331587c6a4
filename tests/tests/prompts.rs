//! Stored prompts over HTTP: the Llama Stack's dialect, the store's own abilities, and the version on every trace.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stockade_tests::{Options, Server, scratch};

const ROOT: &str = "/stockade/v1/prompts";

#[test]
fn llama_stack_prompts_have_versions_a_default_and_an_optimistic_check() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let body = json!({"prompt": "Greet {{ who }} in {{lang}}.", "variables": ["who", "lang"]});
    let made = client.post("/v1/prompts", &body)?.expect(200)?;
    let id = made["prompt_id"].as_str().context("an id")?.to_string();
    let hex = id.strip_prefix("pmpt_").context("the prefix")?;
    ensure!(hex.len() == 48 && hex.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    let want = json!({"prompt_id": id, "prompt": body["prompt"], "version": 1, "variables": body["variables"],
        "is_default": true});
    ensure!(made == want, "{made}");

    let path = format!("/v1/prompts/{id}");
    let update = json!({"prompt": "Hi {{who}}", "variables": ["who"], "version": 1, "set_as_default": false});
    let second = client.put(&path, &update)?.expect(200)?;
    ensure!(second["version"] == 2 && second["is_default"] == false, "{second}");
    ensure!(client.get(&path)?.expect(200)? == want, "the first is the default still");
    ensure!(client.get(&format!("{path}?version=2"))?.expect(200)? == second);
    let stale = client.put(&path, &update)?.expect(400)?;
    ensure!(stale["error"]["param"] == "version", "{stale}");

    let chosen = client.put(&format!("{path}/set-default-version"), &json!({"version": 2}))?.expect(200)?;
    ensure!(chosen["is_default"] == true && chosen["version"] == 2, "{chosen}");
    let versions = client.get(&format!("{path}/versions"))?.expect(200)?;
    let defaults: Vec<_> = versions["data"].as_array().into_iter().flatten().map(|v| v["is_default"].clone()).collect();
    ensure!(defaults == [false, true], "{versions}");
    // The host's own `assistant` prompt is not one of the dialect's.
    let list = client.get("/v1/prompts")?.expect(200)?;
    ensure!(list == json!({"data": [chosen]}), "{list}");

    let undeclared = client.post("/v1/prompts", &json!({"prompt": "Hi {{who}}"}))?.expect(400)?;
    ensure!(undeclared["error"]["message"].as_str().is_some_and(|m| m.contains("who")), "{undeclared}");
    client.put(&format!("{path}/set-default-version"), &json!({"version": 3}))?.expect(404)?;
    client.delete(&path)?.expect(204)?;
    for gone in [&*path, "/v1/prompts/assistant", "/v1/prompts/pmpt_0"] {
        client.get(gone)?.expect(404)?;
    }
    client.put(&path, &update)?.expect(404)?;
    Ok(())
}

#[test]
fn a_trace_names_the_version_that_the_reply_was_made_with() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let ask = || -> Result<Value> {
        let body = json!({"model": "smollm2", "temperature": 0, "max_tokens": 4,
            "messages": [{"role": "user", "content": "Hi"}]});
        let answer = client.post("/v1/chat/completions", &body)?;
        let id = answer.header("stockade-trace").context("a trace id")?.to_string();
        answer.expect(200)?;
        client.trace(&id)
    };
    let first = ask()?;
    let used = &first["prompts"][0];
    ensure!(used["name"] == "assistant" && used["version"] == 1 && used["label"] == "production", "{first}");

    // A release, and with it the same prompt's new version.
    let put = client.put(&format!("{ROOT}/assistant"), &json!({"template": "Be brief."}))?.expect(200)?;
    ensure!(put["version"] == 2 && put["parent"] == 1, "{put}");
    let label = format!("{ROOT}/assistant/labels/production");
    client.put(&label, &json!({"version": 2, "expected": 1}))?.expect(200)?;
    let second = ask()?;
    let used = &second["prompts"];
    let want = json!([{"name": "assistant", "version": 2, "digest": put["digest"], "label": "production",
        "label_revision": 2}]);
    ensure!(used == &want, "{used}");

    // A prompt that a request names by its id.
    let prompt = json!({"prompt": "Answer as {{who}}.", "variables": ["who"]});
    let id = client.post("/v1/prompts", &prompt)?.expect(200)?["prompt_id"].clone();
    let body = json!({"model": "smollm2", "input": "Hi", "temperature": 0, "max_output_tokens": 4,
        "prompt": {"id": id, "variables": {"who": "Ann"}}});
    let answer = client.post("/v1/responses", &body)?;
    let trace_id = answer.header("stockade-trace").context("a trace id")?.to_string();
    answer.expect(200)?;
    let used = client.trace(&trace_id)?["prompts"].clone();
    ensure!(used[0]["name"] == id && used[0]["version"] == 1, "{used}");
    Ok(())
}

#[test]
fn prompts_are_put_labelled_compared_rendered_and_carried_to_another_tenant() -> Result<()> {
    let data = scratch();
    let server = Server::start(data.path(), &Options::default())?;
    let client = server.admin();
    let path = format!("{ROOT}/greet");
    let definition = |text: &str| {
        json!({"template": [{"role": "system", "content": text}, {"placeholder": "talk"}],
            "variables": ["who", {"name": "talk", "kind": "messages", "default": []}],
            "tags": ["hall"], "model_config": {"model": "smollm2"}, "message": "why"})
    };
    client.put(&path, &definition("Greet {{who}} well."))?.expect(200)?;
    client.put(&path, &definition("Greet {{who}} briefly."))?.expect(200)?;
    let shares = json!({"shares": [{"version": 1, "weight": 1}, {"version": 2, "weight": 1}], "protected": true});
    client.put(&format!("{path}/labels/test"), &shares)?.expect(200)?;
    let conflict = client.put(&format!("{path}/labels/test"), &shares)?.expect(409)?;
    ensure!(conflict["code"] == "conflict", "{conflict}");

    let render = |key: &str| -> Result<Value> {
        let talk = json!([{"role": "user", "content": "Hi"}]);
        let body = json!({"name": "greet", "label": "test", "key": key, "variables": {"who": "Ann", "talk": talk}});
        client.post(&format!("{ROOT}/render"), &body)?.expect(200)
    };
    let mut seen = std::collections::BTreeMap::new();
    for user in 0..20 {
        let (first, again) = (render(&user.to_string())?, render(&user.to_string())?);
        ensure!(first == again, "{first} and then {again}");
        seen.insert(first["version"].as_u64(), first);
    }
    ensure!(seen.len() == 2, "{seen:?}");
    let two = &seen[&Some(2)];
    ensure!(two["exposure"] == json!({"label": "test", "revision": 1, "versions": 2}), "{two}");
    ensure!(two["messages"][0] == json!({"role": "system", "content": "Greet Ann briefly."}), "{two}");
    ensure!(two["messages"][1] == json!({"role": "user", "content": "Hi"}), "{two}");
    ensure!(two["model_config"]["model"] == "smollm2", "{two}");

    let inline =
        json!({"template": "{{#each xs}}{{this}}.{{/each}}", "format": "dotprompt", "variables": {"xs": [1, 2]}});
    let inline = client.post(&format!("{ROOT}/render"), &inline)?.expect(200)?;
    ensure!(inline == json!({"messages": [{"role": "user", "content": "1.2."}]}), "{inline}");
    let broken = client.post(&format!("{ROOT}/render"), &json!({"template": "{{a"}))?.expect(400)?;
    ensure!(broken["code"] == "invalid_request", "{broken}");

    let diff = client.get(&format!("{path}/diff?before=1&unit=word"))?.expect(200)?;
    let pieces = diff["data"].as_array().context("pieces")?;
    ensure!(pieces.contains(&json!({"removed": "well."})) && pieces.contains(&json!({"added": "briefly."})), "{diff}");
    let found = client.get(&format!("{ROOT}?tag=hall"))?.expect(200)?;
    ensure!(found["data"][0]["name"] == "greet" && found["data"].as_array().map(Vec::len) == Some(1), "{found}");

    // A key of a tenant may move what is not protected.
    let key = json!({"tenant": "default", "name": "author", "scopes": ["components"]});
    let key = client.post("/stockade/v1/keys", &key)?.expect(201)?;
    let author = server.client(key["key"].as_str().context("a key")?);
    let mut change = json!({"version": 2, "expected": 1});
    author.put(&format!("{path}/labels/test"), &change)?.expect(409)?;
    change["force"] = json!(true);
    author.put(&format!("{path}/labels/test"), &change)?.expect(403)?;
    client.put(&format!("{path}/labels/test"), &change)?.expect(200)?;
    let moves = client.get(&format!("{path}/moves"))?.expect(200)?;
    ensure!(moves["data"].as_array().map(Vec::len) == Some(2), "{moves}");

    let file = client.get(&format!("{path}/export"))?.expect(200)?;
    let import = json!({"text": file["text"], "name": "copy"});
    client.post(&format!("{ROOT}/import"), &import)?.expect(200)?;
    let copy = client.get(&format!("{ROOT}/copy?label=test"))?.expect(200)?;
    let original = client.get(&format!("{path}?label=test"))?.expect(200)?;
    ensure!(copy["digest"] == original["digest"] && copy["definition"] == original["definition"], "{copy}");
    ensure!(copy["labels"][0]["protected"] == false, "as the label was last set: {copy}");
    client.delete(&path)?.expect(204)?;
    client.get(&path)?.expect(404)?;
    Ok(())
}

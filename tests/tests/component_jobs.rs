//! Data sets and jobs from inside the sandbox: a component makes one of a part of another, trains on it and sees its end;
//! grants, ownership, tenants and quotas hold.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use stockade_tests::{Client, Options, Server, component, fixture, scratch};

/// A host whose default model is a network of a few thousand weights.
fn start(data: &Path) -> Result<Server> {
    let tiny = format!("tiny={}", fixture("llama32-tiny").display());
    let options = Options::default().arg("--offline").arg("--model").arg(&tiny);
    Server::start(data, &options.env("STOCKADE_COMPONENTS__BIND_SHIPPED", "false"))
}

/// The data set `answers` of 24 rows.
fn answers(client: &Client) -> Result<()> {
    let row = |i: usize| {
        json!({"messages": [{"role": "user", "content": format!("Say word {i}.")},
            {"role": "assistant", "content": "Zorbulon!"}]})
    };
    let set = json!({"name": "answers", "purpose": "post-training", "licence": "CC0-1.0",
        "provenance": "written for this test", "rows": (0..24).map(row).collect::<Vec<_>>()});
    client.post("/stockade/v1/datasets", &set)?.expect(201)?;
    Ok(())
}

fn all_granted() -> Value {
    json!({"datasets": ["answers", "half"], "models": ["tiny", "mine"], "jobs": ["train"]})
}

/// What the tool `trains`, as `name`, answers: its content as JSON, or the code and the message of its error.
fn ask(client: &Client, name: &str, arguments: Value) -> Result<Result<Value, (String, String)>> {
    let path = format!("/stockade/v1/components/{name}/versions/1/invoke");
    let reply = client.post(&path, &json!({"function": "call", "args": [arguments.to_string()]}))?;
    if let Some(what) = reply.body["denied"].as_str() {
        return Ok(Err(("denied".into(), what.into())));
    }
    let reply = reply.expect(200)?;
    if let Some(error) = reply.get("error").filter(|e| !e.is_null()) {
        let text = |field: &str| error[field].as_str().unwrap_or_default().to_string();
        return Ok(Err((text("code"), text("message"))));
    }
    let content = reply["result"]["content"].as_str().with_context(|| format!("no content: {reply}"))?;
    Ok(Ok(serde_json::from_str(content)?))
}

fn begin() -> Value {
    json!({"do": "begin", "from": "answers", "set": "half", "base": "tiny", "name": "mine"})
}

fn granted(client: &Client, name: &str, arguments: Value) -> Result<Value> {
    ask(client, name, arguments)?.map_err(|(code, message)| anyhow::anyhow!("{code}: {message}"))
}

/// The code of the refusal, whose message has `part` in it.
fn refused(client: &Client, name: &str, arguments: Value, part: &str) -> Result<String> {
    match ask(client, name, arguments)? {
        Ok(answer) => anyhow::bail!("not refused: {answer}"),
        Err((code, message)) => {
            ensure!(message.contains(part), "{code}: {message}");
            Ok(code)
        }
    }
}

/// Follows a job over as many calls as it takes; answers with its losses and what the last call told.
fn followed(client: &Client, job: &Value) -> Result<(Vec<f64>, Value)> {
    let (begun, mut after, mut losses) = (Instant::now(), json!(0), Vec::new());
    loop {
        let told = granted(client, "trains", json!({"do": "follow", "job": job, "after": after}))?;
        losses.extend(told["losses"].as_array().context("losses")?.iter().filter_map(Value::as_f64));
        let over = ["Status::Succeeded", "Status::Failed", "Status::Cancelled"]
            .contains(&told["status"].as_str().unwrap_or_default());
        // The end's own event has been told as well once a further look finds nothing.
        if over && told["after"] == after {
            return Ok((losses, told));
        }
        after = told["after"].clone();
        ensure!(begun.elapsed() < Duration::from_secs(240), "{told}");
    }
}

#[test]
fn a_component_trains_on_a_part_of_a_data_set_and_sees_the_end() -> Result<()> {
    let data = scratch();
    let server = start(data.path())?;
    let client = server.admin();
    answers(&client)?;
    client.push("trains", "1", &component("trains"), &all_granted())?;

    let begun = granted(&client, "trains", begin())?;
    ensure!(begun["rows"] == 12, "{begun}");
    let (losses, told) = followed(&client, &begun["job"])?;
    ensure!(told["status"] == "Status::Succeeded" && told["outcome"]["model"] == "mine", "{told}");
    ensure!(losses.len() == 12 && losses[11] < losses[0], "{losses:?}");

    let chat = json!({"model": "mine", "max_tokens": 4, "messages": [{"role": "user", "content": "Say word 3."}]});
    client.post("/v1/chat/completions", &chat)?.expect(200)?;
    let id = begun["job"].as_str().context("an id")?;
    let job = client.get(&format!("/stockade/v1/jobs/{id}"))?.expect(200)?;
    ensure!(job["component"] == "trains" && job["model"] == "mine", "{job}");
    let set = client.get("/stockade/v1/datasets/half")?.expect(200)?;
    ensure!(set["component"] == "trains" && set["files"].as_array().map(Vec::len) == Some(2), "{set}");
    let listed = granted(&client, "trains", json!({"do": "list"}))?;
    ensure!(listed == json!({"sets": ["answers", "half"], "jobs": [id]}), "{listed}");
    granted(&client, "trains", json!({"do": "delete", "set": "half"}))?;
    client.get("/stockade/v1/datasets/half")?.expect(404)?;
    let files = client.get("/v1/files")?.expect(200)?;
    ensure!(files["data"].as_array().map(Vec::len) == Some(1), "the rows of `answers` alone are left: {files}");
    Ok(())
}

#[test]
fn what_a_job_names_needs_a_grant_and_nothing_of_a_refused_one_stays() -> Result<()> {
    let data = scratch();
    let server = start(data.path())?;
    let client = server.admin();
    answers(&client)?;
    let grant = |grants: Value| client.push("trains", "1", &component("trains"), &grants);
    grant(json!({}))?;
    ensure!(refused(&client, "trains", begin(), "datasets: answers")? == "denied");
    ensure!(refused(&client, "trains", json!({"do": "list"}), "datasets: *")? == "denied");
    for (missing, grants) in [
        ("jobs: *", json!({"datasets": ["*"], "models": ["*"]})),
        ("jobs: train", json!({"datasets": ["*"], "models": ["*"], "jobs": ["eval"]})),
        ("models: tiny", json!({"datasets": ["*"], "models": ["mine"], "jobs": ["train"]})),
        ("models: mine", json!({"datasets": ["*"], "models": ["tiny"], "jobs": ["*"]})),
    ] {
        grant(grants)?;
        ensure!(refused(&client, "trains", begin(), missing)? == "denied", "{missing}");
        granted(&client, "trains", json!({"do": "delete", "set": "half"}))?;
    }
    grant(all_granted())?;
    let unknown = json!({"do": "begin", "from": "answers", "set": "half", "base": "mine", "name": "mine"});
    ensure!(refused(&client, "trains", unknown, "spec.model.base: model `mine` is not served")? == "invalid");
    granted(&client, "trains", json!({"do": "delete", "set": "half"}))?;
    let mut judged = begin();
    judged["evaluator"] = json!("answer-match");
    ensure!(refused(&client, "trains", judged, "components: evaluator/answer-match")? == "denied");
    let taken = json!({"do": "begin", "from": "answers", "set": "half", "base": "tiny", "name": "tiny"});
    ensure!(refused(&client, "trains", taken, "exists already")? == "conflict");
    ensure!(refused(&client, "trains", json!({"do": "read", "set": "none"}), "datasets: none")? == "denied");
    ensure!(client.get("/stockade/v1/jobs")?.expect(200)?["data"] == json!([]));
    Ok(())
}

#[test]
fn components_tenants_and_quotas_are_kept_apart() -> Result<()> {
    let data = scratch();
    let server = start(data.path())?;
    let client = server.admin();
    answers(&client)?;
    client.push("trains", "1", &component("trains"), &all_granted())?;
    let begun = granted(&client, "trains", begin())?;
    let follow = json!({"do": "follow", "job": begun["job"], "after": 0});

    // Another component of the tenant reads what it is granted, and changes and steers nothing.
    client.push("other", "1", &component("trains"), &all_granted())?;
    ensure!(granted(&client, "other", json!({"do": "read", "set": "half"}))? == 12);
    let append = json!({"do": "append", "set": "half", "row": {"x": 1}});
    ensure!(refused(&client, "other", append, "has not made")? == "denied");
    ensure!(refused(&client, "other", json!({"do": "delete", "set": "answers"}), "has not made")? == "denied");
    ensure!(refused(&client, "other", follow.clone(), "job")? == "not-found");
    ensure!(refused(&client, "other", json!({"do": "cancel", "job": begun["job"]}), "job")? == "not-found");
    ensure!(granted(&client, "other", json!({"do": "list"}))?["jobs"] == json!([]));

    // For another tenant's there is nothing at all.
    let alice = client.tenant_with_key("alice", &["components", "jobs"])?;
    alice.push("trains", "1", &component("trains"), &all_granted())?;
    ensure!(granted(&alice, "trains", json!({"do": "list"}))? == json!({"sets": [], "jobs": []}));
    ensure!(refused(&alice, "trains", json!({"do": "read", "set": "half"}), "half")? == "not-found");
    ensure!(refused(&alice, "trains", follow, "job")? == "not-found");

    // Steps that are behind it have used the day's budget up.
    let (_, told) = followed(&client, &begun["job"])?;
    ensure!(told["status"] == "Status::Succeeded", "{told}");
    client.send(
        "PATCH",
        "/stockade/v1/tenants/default",
        "application/json",
        &[],
        json!({"quotas": {"job_tokens_per_day": 1}}).to_string().as_bytes(),
    )?;
    granted(&client, "trains", json!({"do": "delete", "set": "half"}))?;
    ensure!(refused(&client, "trains", begin(), "job_tokens_per_day")? == "too-large");
    let again = json!({"do": "cancel", "job": begun["job"]});
    ensure!(refused(&client, "trains", again, "ended")? == "conflict");
    Ok(())
}

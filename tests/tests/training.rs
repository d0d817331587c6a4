//! Training on the real host: a job becomes a served model, over HTTP and by the command line; kill -9 costs nothing.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use stockade_tests::python::{llama_stack, openai, passes};
use stockade_tests::{Client, Options, Server, binary, component, fixture, scratch};

const JOBS: &str = "/stockade/v1/jobs";

/// A host whose default model is a network of a few thousand weights.
fn start(data: &Path) -> Result<Server> {
    let tiny = format!("tiny={}", fixture("llama32-tiny").display());
    let options = Options::default().arg("--offline").arg("--model").arg(&tiny);
    Server::start(data, &options.env("STOCKADE_COMPONENTS__BIND_SHIPPED", "false"))
}

fn rows(n: usize) -> Vec<Value> {
    let row = |i: usize| {
        json!({"messages": [{"role": "user", "content": format!("Say word {i}.")},
            {"role": "assistant", "content": "Zorbulon!"}]})
    };
    (0..n).map(row).collect()
}

fn spec(name: &str, steps: u64) -> Value {
    json!({
        "method": "sft",
        "seed": 3,
        "model": {"base": "tiny", "adapter": {"kind": "lora", "rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}},
        "data": {"train": rows(12), "max_tokens": 128},
        "optim": {"steps": steps, "batch": 2, "learning_rate": 5e-3, "schedule": "constant"},
        "checkpoint": {"every": 5},
        "output": {"name": name},
    })
}

fn queue(client: &Client, spec: &Value) -> Result<String> {
    let job = client.post(JOBS, &json!({"kind": "train", "spec": spec}))?.expect(201)?;
    Ok(job["id"].as_str().context("a job has an id")?.into())
}

/// The job once `done` holds of it.
fn wait(client: &Client, id: &str, done: impl Fn(&Value) -> bool) -> Result<Value> {
    let begin = Instant::now();
    loop {
        let job = client.get(&format!("{JOBS}/{id}"))?.expect(200)?;
        if done(&job) {
            return Ok(job);
        }
        ensure!(begin.elapsed() < Duration::from_secs(240), "{job}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn succeeds(client: &Client, id: &str) -> Result<Value> {
    let job =
        wait(client, id, |job| ["succeeded", "failed", "cancelled"].contains(&job["status"].as_str().unwrap_or("")))?;
    ensure!(job["status"] == "succeeded", "{job}");
    Ok(job)
}

fn models(client: &Client) -> Result<Vec<String>> {
    let list = client.get("/v1/models")?.expect(200)?;
    let ids = list["data"].as_array().context("a list")?.iter().filter_map(|m| m["id"].as_str());
    Ok(ids.map(String::from).collect())
}

/// The steps that a job's events tell of, with their losses.
fn told(client: &Client, id: &str) -> Result<Vec<(u64, f64)>> {
    let events = client.get(&format!("{JOBS}/{id}/events?stream=false"))?.expect(200)?;
    let metrics = events["data"].as_array().context("a list")?.iter().filter(|e| e["kind"] == "metrics");
    let number = |e: &Value| Some((e["data"]["step"].as_u64()?, e["data"]["loss"].as_f64()?));
    metrics.map(|e| number(e).context("a step has a loss")).collect()
}

/// Bytes of the weights of the one trained model.
fn weights(data: &Path) -> Result<Vec<u8>> {
    let folder = data.join("models/.trained");
    let mut found = Vec::new();
    for model in std::fs::read_dir(&folder)?.flatten() {
        found.push(std::fs::read(model.path().join("adapter_model.safetensors"))?);
    }
    ensure!(found.len() == 1, "{} trained models", found.len());
    Ok(found.remove(0))
}

#[test]
fn a_job_becomes_a_model_of_its_tenant_that_survives_a_restart() -> Result<()> {
    let data = scratch();
    let server = start(data.path())?;
    let admin = server.admin();
    let alice = admin.tenant_with_key("alice", &["jobs", "inference"])?;
    let id = queue(&alice, &spec("mine", 20))?;
    let job = succeeds(&alice, &id)?;
    ensure!(job["model"] == "mine" && job["progress"]["step"] == 20, "{job}");
    let losses = told(&alice, &id)?;
    ensure!(losses.len() == 20 && losses[19].1 < 0.8 * losses[0].1, "{losses:?}");

    let chat = json!({"model": "mine", "temperature": 0, "max_tokens": 8,
        "messages": [{"role": "user", "content": "Say word 3."}]});
    let said = |client: &Client| -> Result<Value> {
        let reply = client.post("/v1/chat/completions", &chat)?.expect(200)?;
        Ok(reply["choices"][0]["message"]["content"].clone())
    };
    let tuned = said(&alice)?;
    ensure!(models(&alice)?.contains(&"mine".to_string()));
    ensure!(!models(&admin)?.iter().any(|id| id.contains("mine")), "it is its tenant's alone");
    for name in ["mine", "alice/mine"] {
        let mut foreign = chat.clone();
        foreign["model"] = name.into();
        admin.post("/v1/chat/completions", &foreign)?.expect(404)?;
    }

    // A checkpoint beside it.
    let checkpoints = alice.get(&format!("{JOBS}/{id}/checkpoints"))?.expect(200)?;
    let step = checkpoints["data"][0]["step"].as_u64().context("a checkpoint has a step")?;
    let serve = format!("{JOBS}/{id}/checkpoints/{step}/serve");
    alice.post(&serve, &json!({"name": "early"}))?.expect(201)?;
    ensure!(models(&alice)?.contains(&"early".to_string()));
    ensure!(server.stop()?.success());

    let server = start(data.path())?;
    let alice = server.client(&alice.key);
    ensure!(said(&alice)? == tuned, "the model says the same after a restart");
    ensure!(models(&alice)?.contains(&"early".to_string()));
    alice.delete("/v1/models/early")?.expect(200)?;
    ensure!(!models(&alice)?.contains(&"early".to_string()));
    alice.delete(&format!("{JOBS}/{id}"))?.expect(204)?;
    ensure!(said(&alice)? == tuned, "a model outlives its job");
    Ok(())
}

#[test]
fn a_job_goes_on_by_itself_after_kill_9_and_ends_with_the_same_weights() -> Result<()> {
    let mut spec = spec("mine", 60);
    spec["data"]["eval"] = json!(rows(2));
    spec["eval"] = json!({"every": 20, "samples": 1, "max_tokens": 4});
    let whole = scratch();
    let server = start(whole.path())?;
    let id = queue(&server.admin(), &spec)?;
    succeeds(&server.admin(), &id)?;
    let straight: BTreeMap<u64, f64> = told(&server.admin(), &id)?.into_iter().collect();
    server.kill();

    let data = scratch();
    let mut server = start(data.path())?;
    let id = queue(&server.admin(), &spec)?;
    for at in [7, 23, 41] {
        wait(&server.admin(), &id, |job| job["progress"]["step"].as_u64() >= Some(at))?;
        server.kill();
        server = start(data.path())?;
    }
    let job = succeeds(&server.admin(), &id)?;
    ensure!(job["progress"]["step"] == 60, "{job}");
    let steps = told(&server.admin(), &id)?;
    ensure!(steps.iter().map(|s| s.0).eq(1..=60), "each step is told of once: {steps:?}");
    ensure!(steps.into_iter().collect::<BTreeMap<_, _>>() == straight, "the losses are those of a run without a break");
    let answered: Vec<Value> = heard(&server.admin(), &id, "samples")?.into_iter().map(|e| e["step"].clone()).collect();
    ensure!(answered == [0, 20, 40, 60], "and each answer: {answered:?}");
    ensure!(weights(data.path())? == weights(whole.path())?, "and so are the weights");
    Ok(())
}

#[test]
fn pause_resume_and_cancel_over_http() -> Result<()> {
    let data = scratch();
    let server = start(data.path())?;
    let client = server.admin();
    let id = queue(&client, &spec("mine", 100_000))?;
    wait(&client, &id, |job| job["progress"]["step"].as_u64() > Some(3))?;
    client.post(&format!("{JOBS}/{id}/pause"), &Value::Null)?.expect(200)?;
    let paused = wait(&client, &id, |job| job["status"] == "paused")?;
    client.post(&format!("{JOBS}/{id}/resume"), &Value::Null)?.expect(200)?;
    let on = wait(&client, &id, |job| job["progress"]["step"].as_u64() > paused["progress"]["step"].as_u64())?;
    ensure!(on["status"] == "running", "{on}");
    client.post(&format!("{JOBS}/{id}/cancel"), &Value::Null)?.expect(200)?;
    wait(&client, &id, |job| job["status"] == "cancelled")?;
    ensure!(!models(&client)?.contains(&"mine".to_string()));
    let bad = client.post(JOBS, &json!({"kind": "train", "spec": {"method": "sft", "model": {"bas": "tiny"}}}))?;
    let refused = bad.expect(400)?;
    ensure!(refused["param"].as_str().is_some_and(|p| p.starts_with("spec.model")), "{refused}");
    Ok(())
}

/// A job file beside its data, and a command that runs it.
fn job_file(folder: &Path, steps: u64) -> Result<PathBuf> {
    let lines: String = rows(12).iter().map(|row| format!("{row}\n")).collect();
    std::fs::write(folder.join("train.jsonl"), lines)?;
    let base = fixture("llama32-tiny").display().to_string();
    let text = format!(
        "method = \"sft\"\nseed = 3\n[model]\nbase = {base:?}\nadapter = {{ kind = \"lora\", rank = 4, alpha = 8 }}\n\
         [data]\ntrain = \"train.jsonl\"\nmax_tokens = 128\n[optim]\nsteps = {steps}\nbatch = 2\nlearning_rate = 5e-3\n\
         [checkpoint]\nevery = 10\n[output]\nname = \"mine\"\n"
    );
    let path = folder.join("job.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn train(job: &Path, out: &Path) -> Command {
    let mut command = Command::new(binary());
    command.arg("train").arg(job).arg("--out").arg(out).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_command_line_trains_stops_resumes_and_draws() -> Result<()> {
    let folder = scratch();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let job = job_file(folder.path(), 60)?;
    let done = train(&job, &whole).arg("--json").output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let lines: Vec<Value> =
        String::from_utf8(done.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() == 61 && lines[60]["steps"] == 60, "{:?}", lines.last());
    for file in ["adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "job.toml"] {
        ensure!(whole.join(file).is_file(), "{file} is missing");
    }
    let again = train(&job, &whole).output()?;
    ensure!(again.status.code() == Some(4), "a folder with a run is not overwritten: {}", again.status);

    let mut child = train(&job, &cut).spawn()?;
    let begin = Instant::now();
    let steps = |out: &Path| std::fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |t| t.lines().count());
    while steps(&cut) < 15 {
        ensure!(begin.elapsed() < Duration::from_secs(120), "no step 15");
        std::thread::sleep(Duration::from_millis(5));
    }
    ensure!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success());
    ensure!(child.wait()?.code() == Some(130), "an interrupted run ends with 130");
    ensure!(steps(&cut) < 60, "the run was over before the interruption");
    let resumed = train(&job, &cut).arg("--resume").output()?;
    ensure!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    let numbers: Vec<u64> = std::fs::read_to_string(cut.join("metrics.jsonl"))?
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok()?["step"].as_u64())
        .collect();
    ensure!(numbers.iter().copied().eq(1..=60), "each step stands once");
    let bytes = |out: &Path| std::fs::read(out.join("adapter_model.safetensors"));
    ensure!(bytes(&whole)? == bytes(&cut)?, "the resumed run ends with the same weights");

    for (name, magic) in [("a.svg", &b"<svg"[..]), ("a.png", b"\x89PNG")] {
        let picture = folder.path().join(name);
        let drawn = Command::new(binary()).args(["job", "plot"]).arg(&cut).arg("--out").arg(&picture).output()?;
        ensure!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
        ensure!(std::fs::read(&picture)?.starts_with(magic), "{name}");
    }
    let misspelt = std::fs::read_to_string(&job)?.replace("learning_rate", "lerning_rate");
    std::fs::write(&job, misspelt)?;
    let wrong = train(&job, &folder.path().join("x")).output()?;
    let said = String::from_utf8_lossy(&wrong.stderr);
    ensure!(wrong.status.code() == Some(2) && said.contains("`learning_rate`"), "{said}");
    Ok(())
}

/// Data of an event of the job's stream, by its name.
fn heard(client: &Client, id: &str, name: &str) -> Result<Vec<Value>> {
    let stream = client.get(&format!("{JOBS}/{id}/events"))?;
    let text = stream.body.as_str().context("events are a text")?;
    let events = text.split("\n\n").filter(|event| event.lines().any(|line| line == format!("event: {name}")));
    let data = events.filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")));
    data.map(|data| Ok(serde_json::from_str::<Value>(data)?["data"].clone())).collect()
}

#[test]
fn an_evaluator_component_scores_answers_during_a_job_and_they_are_shown() -> Result<()> {
    let data = scratch();
    let server = start(data.path())?;
    let client = server.admin();
    client.push("answer-match", "0.1.0", &component("answer-match"), &json!({}))?;
    client.bind(
        "evaluator/words",
        json!([{"component": "answer-match", "version": "0.1.0", "config": {"metrics": ["exact", "f1"]}}]),
    )?;
    let mut spec = spec("mine", 60);
    spec["data"]["eval"] = json!(rows(4));
    spec["model"]["adapter"]["targets"] = Value::Null;
    spec["optim"]["learning_rate"] = 2e-2.into();
    spec["eval"] = json!({"every": 20, "samples": 3, "show": 2, "max_tokens": 12, "evaluators": ["words"],
        "best_by": "words/f1", "patience": 9});
    let mut unbound = spec.clone();
    unbound["eval"]["evaluators"] = json!(["none"]);
    unbound["eval"]["best_by"] = Value::Null;
    let refused = client.post(JOBS, &json!({"kind": "train", "spec": unbound}))?.expect(400)?;
    ensure!(refused["param"] == "spec.eval.evaluators", "{refused}");

    let id = queue(&client, &spec)?;
    succeeds(&client, &id)?;
    let scored: Vec<Value> =
        heard(&client, &id, "metrics")?.into_iter().filter(|line| !line["eval_loss"].is_null()).collect();
    let of: Vec<Option<f64>> = scored.iter().map(|line| line["eval/words/f1"].as_f64()).collect();
    ensure!(of.len() == 3 && of.iter().all(Option::is_some), "{scored:?}");
    ensure!(of[2] == Some(1.0) && scored[2]["eval/words/exact"] == 1.0, "learnt by heart: {of:?}");
    ensure!(scored.iter().all(|line| line["samples"].is_null() && line["eval/words/number"].is_null()), "{scored:?}");

    let shown = heard(&client, &id, "samples")?;
    let steps: Vec<u64> = shown.iter().filter_map(|event| event["step"].as_u64()).collect();
    ensure!(steps == [0, 20, 40, 60], "{shown:?}");
    let sample = |event: usize| &shown[event]["samples"][1];
    ensure!(shown.iter().all(|event| event["samples"].as_array().is_some_and(|all| all.len() == 2)), "{shown:?}");
    ensure!(sample(0)["prompt"] == "Say word 1." && sample(0)["expected"] == "Zorbulon!", "{}", sample(0));
    ensure!(sample(0)["answer"] != "Zorbulon!" && sample(3)["answer"] == "Zorbulon!", "{} {}", sample(0), sample(3));
    ensure!(sample(3)["scores"]["words/exact"] == 1.0, "{}", sample(3));
    let notes = client.get(&format!("{JOBS}/{id}/events?stream=false"))?.expect(200)?.to_string();
    ensure!(notes.contains("before the first step: words/exact 0.0000"), "{notes}");

    // What is wrong with a component from the start ends the job before its first step, with a stable code.
    client.bind(
        "evaluator/words",
        json!([{"component": "answer-match", "version": "0.1.0", "config": {"metrics": ["f1"]}}]),
    )?;
    spec["eval"]["best_by"] = "words/exact".into();
    spec["output"]["name"] = "other".into();
    let id = queue(&client, &spec)?;
    let job = wait(&client, &id, |job| job["status"] == "failed" || job["status"] == "succeeded")?;
    let said = job["error"]["message"].as_str().unwrap_or_default();
    ensure!(job["status"] == "failed" && said == "eval.best_by: there are words/f1", "{job}");
    Ok(())
}

#[test]
fn the_command_line_shows_answers_scored_by_a_component() -> Result<()> {
    let folder = scratch();
    let job = job_file(folder.path(), 20)?;
    std::fs::write(folder.path().join("mine.wasm"), component("answer-match"))?;
    // A file beside the job, and one that comes with the host.
    let evaluation = "eval = \"train.jsonl\"\n[eval]\nevery = 10\nsamples = 3\nshow = 1\nmax_tokens = 4\n\
                      evaluators = [\"mine.wasm\", \"answer-match\"]\n[optim]\n";
    std::fs::write(&job, std::fs::read_to_string(&job)?.replace("[optim]\n", evaluation))?;
    let out = folder.path().join("out");
    let done = train(&job, &out).output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{said}");
    for text in ["  after 0: Say word 0. -> ", "  after 10: Say word 0. -> ", "  after 20: ", "eval/mine/exact "] {
        ensure!(said.contains(text), "{text} in {said}");
    }
    let log = std::fs::read_to_string(out.join("metrics.jsonl"))?;
    let lines: Vec<Value> = log.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines[9]["eval/mine/f1"] == lines[9]["eval/answer-match/f1"] && lines[9]["eval/mine/f1"].is_f64());
    ensure!(lines[19]["samples"][0]["expected"] == "Zorbulon!", "{}", lines[19]);
    let picture = folder.path().join("a.svg");
    let drawn = Command::new(binary()).args(["job", "plot"]).arg(&out).arg("--out").arg(&picture).output()?;
    ensure!(drawn.status.success() && std::fs::read_to_string(&picture)?.contains("eval/mine/exact"));
    std::fs::write(&job, std::fs::read_to_string(&job)?.replace("mine.wasm", "missing.wasm"))?;
    let missing = train(&job, &folder.path().join("x")).output()?;
    ensure!(missing.status.code() == Some(3), "{}", String::from_utf8_lossy(&missing.stderr));
    Ok(())
}

#[test]
fn two_runs_on_one_folder_are_refused_and_a_killed_one_leaves_it_free() -> Result<()> {
    let folder = scratch();
    let (job, out) = (job_file(folder.path(), 100_000)?, folder.path().join("out"));
    let steps = || std::fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |t| t.lines().count());
    let runs = |child: &mut std::process::Child, from: usize| -> Result<()> {
        let begin = Instant::now();
        while steps() <= from {
            ensure!(child.try_wait()?.is_none() && begin.elapsed() < Duration::from_secs(120), "no step {from}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    };
    let spawn = |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut first = spawn(train(&job, &out))?;
    runs(&mut first, 12)?;
    for resume in [false, true] {
        let mut second = train(&job, &out);
        let second = if resume { second.arg("--resume") } else { &mut second }.output()?;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        let named = said.contains(&format!("is being trained in by process {}", first.id()));
        ensure!(second.status.code() == Some(4) && named, "{said}");
    }
    ensure!(first.try_wait()?.is_none(), "the first one goes on");
    first.kill()?;
    first.wait()?;
    let done = steps();
    let mut resumed = train(&job, &out);
    resumed.arg("--resume");
    let mut resumed = spawn(resumed)?;
    let runs = runs(&mut resumed, done);
    resumed.kill()?;
    resumed.wait()?;
    runs
}

#[test]
fn a_job_file_runs_on_the_server_and_is_followed() -> Result<()> {
    let (data, folder) = (scratch(), scratch());
    let server = start(data.path())?;
    let job = job_file(folder.path(), 30)?;
    let text = std::fs::read_to_string(&job)?.replace(&fixture("llama32-tiny").display().to_string(), "tiny");
    std::fs::write(&job, text)?;
    let stockade = |args: &[&str]| {
        let mut command = Command::new(binary());
        command.args(args).env("STOCKADE_URL", &server.url).env("STOCKADE_API_KEY", stockade_tests::ADMIN_KEY);
        command.output()
    };
    let path = job.display().to_string();
    let done = stockade(&["train", &path, "--submit", "--watch", "--json"])?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let lines = String::from_utf8(done.stdout)?;
    let last: Value = serde_json::from_str(lines.lines().last().context("it says how it ended")?)?;
    ensure!(last["status"] == "succeeded" && last["model"] == "mine", "{last}");
    let list = stockade(&["job", "list"])?;
    ensure!(String::from_utf8_lossy(&list.stdout).contains("succeeded"));
    let id = last["id"].as_str().context("it names the job")?;
    let picture = folder.path().join("job.svg").display().to_string();
    ensure!(stockade(&["job", "plot", id, "--out", &picture])?.status.success());
    ensure!(stockade(&["job", "pause", id])?.status.code() == Some(4), "an ended job is not paused");
    ensure!(stockade(&["job", "show", "job_none"])?.status.code() == Some(3));
    Ok(())
}

#[test]
fn the_openai_client_finetunes() -> Result<()> {
    let data = scratch();
    passes(&openai()?, "fine_tuning_client.py", &start(data.path())?)
}

/// The last line whose calls name their job; from 0.4 on the generated client leaves `job_uuid` out.
#[test]
fn the_llama_stack_client_finetunes() -> Result<()> {
    let data = scratch();
    passes(&llama_stack("0.3.5")?, "llama_stack_post_training.py", &start(data.path())?)
}

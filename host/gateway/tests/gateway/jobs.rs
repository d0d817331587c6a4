//! Jobs, data sets and trained models over HTTP, in the three dialects; no worker takes the jobs here but the tests.

use crate::fakes::*;
use axum::body::Body;
use serde_json::{Map, Value, json};
use stockade_core::TenantId;
use stockade_core::registry::{Claimed, FileLabel, JobEnd, Report, TrainedModel, Worker, new_document_id};
use stockade_core::train::{Saved, StepMetrics};

const JOBS: [&str; 2] = ["jobs", "inference"];

fn spec() -> Value {
    json!({"method": "sft", "model": {"base": "m"}, "data": {"train": [{"prompt": "a", "completion": "b"}]},
        "optim": {"steps": 4}, "output": {"name": "tuned", "dir": "/etc"}})
}

async fn queue(host: &Host, key: &str, spec: Value) -> Reply {
    host.call(key, "POST", "/stockade/v1/jobs", &json!({"kind": "train", "spec": spec})).await
}

async fn claim(host: &Host) -> Claimed {
    let worker = Worker { name: "test".into(), run: 1 };
    host.registry.claim_job(&worker, 1_000, 60_000).await.unwrap().expect("a job waits")
}

fn step(n: u64) -> StepMetrics {
    StepMetrics {
        step: n,
        steps: 4,
        loss: 2.0 / n as f64,
        lr: 0.1,
        grad_norm: 1.0,
        tokens: 100 * n,
        tokens_per_second: 50.0,
        eval_loss: (n == 4).then_some(0.7),
        samples: Vec::new(),
        more: Map::new(),
    }
}

#[tokio::test]
async fn a_job_is_checked_whole_before_it_is_queued() {
    let host = Host::new().await;
    let key = host.tenant("alice", &JOBS).await;
    let with = |pointer: &str, value: Value| {
        let mut spec = spec();
        *spec.pointer_mut(pointer).unwrap() = value;
        spec
    };
    for (bad, param) in [
        (json!("text"), "spec"),
        (json!({}), "spec.method"),
        (with("/model/base", json!("none")), "spec.model.base"),
        (with("/model/base", json!("/etc/passwd")), "spec.model.base"),
        (with("/model", json!({"base": "m", "tokenizer": "/etc"})), "spec.model.tokenizer"),
        (with("/data/train", json!("/etc/passwd")), "spec.data"),
        (with("/data/train", json!("file_none")), "spec.data"),
        (with("/data/train", json!([])), "spec.data.train"),
        (with("/data/train", json!([1])), "spec.data.train[0]"),
    ] {
        let refused = queue(&host, &key, bad.clone()).await.expect(400);
        assert_eq!(refused["param"], param, "{bad}");
    }
    let mut rewarded = spec();
    rewarded["grpo"] = json!({"rewards": ["none"]});
    assert_eq!(queue(&host, &key, rewarded).await.expect(400)["param"], "spec.grpo.rewards");
    let mut evaluated = spec();
    evaluated["eval"] = json!({"evaluators": ["none"]});
    assert_eq!(queue(&host, &key, evaluated).await.expect(400)["param"], "spec.eval.evaluators");
    assert_eq!(queue(&host, &key, with("/output/name", json!("m"))).await.expect(409)["code"], "conflict");
    for kind in ["eval", "generate", "batch"] {
        let body = json!({"kind": kind, "spec": {}});
        let refused = host.call(&key, "POST", "/stockade/v1/jobs", &body).await.expect(400);
        assert!(refused["detail"].as_str().unwrap().contains("not served"), "{refused}");
    }
    let files = host.call(&key, "GET", "/v1/files", &Value::Null).await.expect(200);
    assert_eq!(files["data"], json!([]), "rows of refused jobs are not kept");

    let job = queue(&host, &key, spec()).await.expect(201);
    assert_eq!((&job["status"], &job["method"], &job["base"]), (&json!("queued"), &json!("sft"), &json!("m")));
    assert!(job["spec"]["output"].get("dir").is_none(), "folders are the host's");
    assert!(job["spec"]["data"]["train"].as_str().unwrap().starts_with("file_"));
    let inference = host.tenant("alice", &["inference"]).await;
    assert_eq!(queue(&host, &inference, spec()).await.status, 403);
}

#[tokio::test]
async fn jobs_of_others_look_like_none_and_quotas_bound_ones_own() {
    let host = Host::new().await;
    let (alice, bob) = (host.tenant("alice", &JOBS).await, host.tenant("bob", &JOBS).await);
    host.call(ADMIN, "PATCH", "/stockade/v1/tenants/alice", &json!({"quotas": {"jobs": 1}})).await.expect(200);
    let job = queue(&host, &alice, spec()).await.expect(201);
    let id = job["id"].as_str().unwrap();
    let refused = queue(&host, &alice, spec()).await;
    assert!(!refused.header("retry-after").is_empty());
    let refused = refused.expect(429);
    assert_eq!((&refused["code"], &refused["quota"]), (&json!("quota_exceeded"), &json!("jobs")));
    for (method, path) in [
        ("GET", format!("/stockade/v1/jobs/{id}")),
        ("DELETE", format!("/stockade/v1/jobs/{id}")),
        ("GET", format!("/stockade/v1/jobs/{id}/events")),
        ("POST", format!("/stockade/v1/jobs/{id}/cancel")),
        ("GET", format!("/v1/fine_tuning/jobs/{id}")),
        ("GET", format!("/v1alpha/post-training/jobs/{id}/status")),
    ] {
        assert_eq!(host.call(&bob, method, &path, &Value::Null).await.status, 404, "{path}");
    }
    let list = host.call(&bob, "GET", "/stockade/v1/jobs", &Value::Null).await.expect(200);
    assert_eq!(list, json!({"data": [], "next": null}));

    // The budget of a day: used up by what the job has taken, no other may begin or go on.
    let quotas = json!({"quotas": {"jobs": null, "job_tokens_per_day": 100}});
    host.call(ADMIN, "PATCH", "/stockade/v1/tenants/alice", &quotas).await.expect(200);
    let claimed = claim(&host).await;
    let report = Report { steps: vec![step(1)], ..Report::default() };
    host.registry.end_job(&claimed, &report, &JobEnd::Paused, 2_000).await.unwrap();
    let refused = queue(&host, &alice, spec()).await.expect(429);
    assert_eq!(refused["quota"], "job_tokens_per_day");
    let resume = format!("/stockade/v1/jobs/{id}/resume");
    assert_eq!(host.call(&alice, "POST", &resume, &Value::Null).await.expect(429)["code"], "quota_exceeded");
}

#[tokio::test]
async fn events_are_followed_to_the_end_and_replayed_after_an_id() {
    let host = Host::new().await;
    let job = queue(&host, ADMIN, spec()).await.expect(201);
    let path = format!("/stockade/v1/jobs/{}/events", job["id"].as_str().unwrap());
    let claimed = claim(&host).await;
    let follow = request(ADMIN, "GET", &path, &[], Body::empty());
    let worker = async {
        for n in 1..=4 {
            let report = Report { steps: vec![step(n)], milliseconds: 10, ..Report::default() };
            host.registry.report_job(&claimed, &report, 2_000, 60_000).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        let end = JobEnd::Succeeded(json!({"model": "mine"}));
        host.registry.end_job(&claimed, &Report::default(), &end, 3_000).await.unwrap()
    };
    let (reply, ended) = tokio::join!(host.send(follow), worker);
    let text = String::from_utf8(reply.bytes.to_vec()).unwrap();
    let of = |text: &str, name: &str| text.matches(&format!("\nevent: {name}\n")).count();
    assert_eq!((of(&text, "metrics"), of(&text, "status")), (4, 3), "{text}");
    assert!(text.ends_with("event: end\ndata: {}\n\n"), "{text}");
    let header = [("last-event-id", "4")];
    let again = host.send(request(ADMIN, "GET", &path, &header, Body::empty())).await;
    let rest = String::from_utf8(again.bytes.to_vec()).unwrap();
    assert!(rest.starts_with("id: 5\n"), "{rest}");
    assert!(text.ends_with(&rest));
    let now = host.get(&format!("{path}?stream=false&after=2")).await.expect(200);
    assert_eq!(now["data"][0]["id"], 3);
    assert_eq!(now["data"][0]["data"]["loss"], 2.0);
    let bad = [("last-event-id", "x")];
    assert_eq!(host.send(request(ADMIN, "GET", &path, &bad, Body::empty())).await.status, 400);
    let shown = host.get(&format!("/stockade/v1/jobs/{}", ended.id)).await.expect(200);
    assert_eq!((&shown["status"], &shown["model"]), (&json!("succeeded"), &json!("mine")));
    assert_eq!(shown["progress"]["share"], 1.0);
    assert_eq!(shown["progress"]["eval_loss"], 0.7);
    assert_eq!(host.delete(&format!("/stockade/v1/jobs/{}", ended.id)).await.status, 204);
}

#[tokio::test]
async fn openai_and_llama_stack_see_the_same_job_in_their_own_shapes() {
    let host = Host::new().await;
    let tenant = TenantId::default_tenant();
    let file = new_document_id("file", 1);
    let message = |role: &str| json!([{"role": role, "content": "x"}]);
    let row = json!({"input": {"messages": message("user")}, "preferred_output": message("assistant"),
        "non_preferred_output": message("assistant")});
    let bytes = row.to_string().into_bytes();
    host.registry.put_file(&tenant, &file, FileLabel::default(), &bytes).await.unwrap();
    let body = json!({"model": "m", "training_file": file, "suffix": "nice", "metadata": {"a": "b"},
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.5, "n_epochs": "auto"}}}});
    let made = host.post("/v1/fine_tuning/jobs", body).await.expect(200);
    assert_eq!((&made["object"], &made["status"]), (&json!("fine_tuning.job"), &json!("queued")));
    let hyper = &made["method"]["dpo"]["hyperparameters"];
    assert_eq!((&hyper["n_epochs"], &hyper["batch_size"]), (&json!(25), &json!(1)), "the one example was counted");
    assert_eq!(made["method"]["dpo"]["hyperparameters"]["beta"], 0.5);
    assert_eq!((&made["training_file"], &made["fine_tuned_model"]), (&json!(file), &Value::Null));
    let id = made["id"].as_str().unwrap();
    let own = host.get(&format!("/stockade/v1/jobs/{id}")).await.expect(200);
    assert_eq!(own["spec"]["data"]["train"], file, "the trainer reads such rows as they are");

    let paused = host.post(&format!("/v1/fine_tuning/jobs/{id}/pause"), Value::Null).await.expect(200);
    assert_eq!(paused["status"], "paused");
    let status = host.get(&format!("/v1alpha/post-training/job/status?job_uuid={id}")).await.expect(200);
    assert_eq!(status["status"], "scheduled");
    host.post(&format!("/v1/fine_tuning/jobs/{id}/resume"), Value::Null).await.expect(200);
    let folder = std::env::temp_dir();
    let claimed = claim(&host).await;
    let saved = Saved { step: 2, path: folder.clone(), eval_loss: Some(0.9) };
    let report = Report { steps: vec![step(1), step(2)], checkpoints: vec![saved], ..Report::default() };
    host.registry.report_job(&claimed, &report, 2_000, 60_000).await.unwrap();
    let checkpoints = host.get(&format!("/v1/fine_tuning/jobs/{id}/checkpoints")).await.expect(200);
    let first = &checkpoints["data"][0];
    assert_eq!((&first["step_number"], &first["metrics"]["valid_loss"]), (&json!(2), &json!(0.9)));
    let events = host.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=2")).await.expect(200);
    assert_eq!(events["has_more"], true);
    assert_eq!(events["data"][0]["object"], "fine_tuning.job.event");
    let after = events["last_id"].as_str().unwrap();
    let more = host.get(&format!("/v1/fine_tuning/jobs/{id}/events?limit=100&after={after}")).await.expect(200);
    assert_eq!(more["has_more"], false);

    // The name that the list tells is one that a request may use: it is served then.
    let name = first["fine_tuned_model_checkpoint"].as_str().unwrap();
    let named = |name: &str| json!({"model": name, "prompt": "hi", "messages": [{"role": "user", "content": "hi"}]});
    for (n, path) in ["/v1/chat/completions", "/v1/completions", "/v1/responses"].into_iter().enumerate() {
        host.post(path, named(name)).await;
        let published = host.publisher.published.lock().unwrap();
        assert_eq!((published.len(), &*published[n].name, published[n].step), (n + 1, name, Some(2)), "{path}");
    }
    host.post("/v1/fine_tuning/jobs", json!({"model": name, "training_file": file})).await;
    host.get(&format!("/v1/models/{name}")).await;
    assert_eq!(host.publisher.published.lock().unwrap().len(), 5);
    let other = host.tenant("other", &JOBS).await;
    for (key, name) in [(ADMIN, name.replace("step-2", "step-3")), (&*other, name.into())] {
        assert_eq!(host.call(key, "POST", "/v1/chat/completions", &named(&name)).await.status, 404, "{name}");
    }
    assert_eq!(host.publisher.published.lock().unwrap().len(), 5);

    // A checkpoint is served under a name of its own.
    let serve = format!("/stockade/v1/jobs/{id}/checkpoints/2/serve");
    let served = host.post(&serve, json!({})).await.expect(201);
    assert!(served["model"].as_str().unwrap().ends_with(":step-2"));
    assert_eq!(host.publisher.published.lock().unwrap()[0].path, folder);
    assert_eq!(host.post(&serve.replace("/2/", "/3/"), json!({})).await.status, 404);
    assert_eq!(host.post(&serve, json!({"name": "m"})).await.status, 409);

    let cancelled = host.post(&format!("/v1/fine_tuning/jobs/{id}/cancel"), Value::Null).await.expect(200);
    assert_eq!(cancelled["status"], "running", "its worker ends it");
    host.registry.end_job(&claimed, &Report::default(), &JobEnd::Cancelled, 3_000).await.unwrap();
    let list = host.get("/v1/fine_tuning/jobs").await.expect(200);
    assert_eq!((&list["data"][0]["status"], &list["has_more"]), (&json!("cancelled"), &json!(false)));
    for (bad, param) in [
        (json!({"model": "none", "training_file": file}), "model"),
        (json!({"model": "m", "training_file": "file_none"}), "training_file"),
    ] {
        assert_eq!(host.post("/v1/fine_tuning/jobs", bad).await.expect(400)["error"]["param"], param);
    }

    let config = json!({"n_epochs": 1, "data_config": {"dataset_id": file, "batch_size": 1, "shuffle": true, "data_format": "dialog"}});
    let body = json!({"job_uuid": "u-1", "model": "m", "training_config": config, "hyperparam_search_config": {}, "logger_config": {}});
    let path = "/v1alpha/post-training/supervised-fine-tune";
    assert_eq!(host.post(path, body.clone()).await.expect(200), json!({"job_uuid": "u-1"}));
    assert_eq!(host.post(path, body).await.expect(409)["error"]["code"], "conflict");
    let jobs = host.get("/v1alpha/post-training/jobs").await.expect(200);
    assert!(jobs["data"].as_array().unwrap().contains(&json!({"job_uuid": "u-1"})));
    host.post("/v1alpha/post-training/job/cancel", json!({"job_uuid": "u-1"})).await.expect(200);
    let status = host.get("/v1alpha/post-training/jobs/u-1/status").await.expect(200);
    assert_eq!(status["status"], "cancelled");
    let artifacts = host.get("/v1alpha/post-training/job/artifacts?job_uuid=u-1").await.expect(200);
    assert_eq!(artifacts["checkpoints"], json!([]));
}

#[tokio::test]
async fn data_sets_have_a_purpose_a_licence_and_a_provenance() {
    let host = Host::new().await;
    let body = json!({"name": "facts", "purpose": "post-training", "licence": "CC0-1.0", "provenance": "by hand",
        "rows": [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}]});
    let made = host.post("/stockade/v1/datasets", body.clone()).await.expect(201);
    assert_eq!((&made["purpose"], &made["licence"]), (&json!("post-training"), &json!("CC0-1.0")));
    assert_eq!(host.post("/stockade/v1/datasets", body.clone()).await.status, 409);
    for missing in ["name", "purpose", "licence", "provenance", "rows"] {
        let mut body = body.clone();
        body.as_object_mut().unwrap().shift_remove(missing);
        assert_eq!(host.post("/stockade/v1/datasets", body).await.status, 400, "{missing}");
    }
    let mut by_name = spec();
    by_name["data"]["train"] = "facts".into();
    queue(&host, ADMIN, by_name.clone()).await.expect(201);
    // What a data set says of itself holds: its format is the job's, and one to evaluate on is not trained on.
    for (name, purpose, format) in
        [("talks", "post-training", "chat"), ("pairs", "post-training", "completion"), ("test", "evaluation", "chat")]
    {
        let mut body = body.clone();
        (body["name"], body["purpose"], body["format"]) = (name.into(), purpose.into(), format.into());
        host.post("/stockade/v1/datasets", body).await.expect(201);
    }
    by_name["data"] = json!({"train": "talks", "eval": "test"});
    let made = queue(&host, ADMIN, by_name.clone()).await.expect(201);
    assert_eq!(made["spec"]["data"]["format"], "chat");
    for (data, param) in
        [(json!({"train": "test"}), "spec.data.train"), (json!({"train": "talks", "eval": "pairs"}), "spec.data.eval")]
    {
        by_name["data"] = data;
        assert_eq!(queue(&host, ADMIN, by_name.clone()).await.expect(400)["param"], param);
    }
    by_name["data"] = json!({"train": "talks", "format": "completion"});
    assert_eq!(queue(&host, ADMIN, by_name).await.expect(201)["spec"]["data"]["format"], "completion");
    for name in ["talks", "pairs", "test"] {
        assert_eq!(host.delete(&format!("/stockade/v1/datasets/{name}")).await.status, 204);
    }
    let rows = host.get("/v1beta/datasetio/iterrows/facts?limit=1").await.expect(200);
    assert_eq!((&rows["data"][0]["prompt"], &rows["has_more"]), (&json!("a"), &json!(true)));
    for (from, data) in [(1, json!([{"prompt": "c", "completion": "d"}])), (2, json!([])), (9, json!([]))] {
        let rows = host.get(&format!("/v1beta/datasetio/iterrows/facts?start_index={from}")).await.expect(200);
        assert_eq!((&rows["data"], &rows["has_more"]), (&data, &json!(false)), "from {from}");
    }
    let theirs = host.get("/v1beta/datasets/facts").await.expect(200);
    assert_eq!((&theirs["identifier"], &theirs["purpose"]), (&json!("facts"), &json!("post-training/messages")));
    let register =
        json!({"dataset_id": "qa", "purpose": "eval/question-answer", "source": {"type": "rows", "rows": [{"q": 1}]}});
    host.post("/v1beta/datasets", register).await.expect(200);
    let address = json!({"purpose": "eval/question-answer", "source": {"type": "uri", "uri": "http://10.0.0.1/x"}});
    assert_eq!(host.post("/v1beta/datasets", address).await.status, 400);
    let list = host.get("/stockade/v1/datasets").await.expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    let bob = host.tenant("bob", &JOBS).await;
    assert_eq!(host.call(&bob, "GET", "/stockade/v1/datasets/facts", &Value::Null).await.status, 404);
    assert_eq!(host.delete("/stockade/v1/datasets/facts").await.status, 204);
    assert_eq!(host.delete("/stockade/v1/datasets/facts").await.status, 404);
}

#[tokio::test]
async fn a_trained_model_goes_by_its_tenants_name_and_is_unknown_to_others() {
    let host = Host::new().await;
    let (alice, bob) = (host.tenant("alice", &JOBS).await, host.tenant("bob", &JOBS).await);
    let model = TrainedModel {
        tenant: TenantId::new("alice").unwrap(),
        name: "mine".into(),
        folder: "f".into(),
        base: None,
        job: "job_1".into(),
        step: None,
        created_at: 0,
    };
    host.registry.put_trained_model(model).await.unwrap();
    let ids = async |key: &str| {
        let list = host.call(key, "GET", "/v1/models", &Value::Null).await.expect(200);
        list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(ids(&alice).await.contains(&"mine".to_string()));
    for other in [&bob[..], ADMIN] {
        assert!(ids(other).await.iter().all(|id| !id.contains("mine")));
        for name in ["mine", "alice/mine"] {
            let body = json!({"model": name, "messages": [{"role": "user", "content": "hi"}]});
            assert_eq!(host.call(other, "POST", "/v1/chat/completions", &body).await.status, 404, "{name}");
            assert_eq!(host.call(other, "GET", &format!("/v1/models/{name}"), &Value::Null).await.status, 404);
        }
    }
    // A list of allowed models does not take a tenant's own away.
    host.call(ADMIN, "PATCH", "/stockade/v1/tenants/alice", &json!({"quotas": {"models": ["e"]}})).await.expect(200);
    assert_eq!(ids(&alice).await, ["e", "mine"]);
    let body = json!({"model": "mine", "prompt": "hi", "max_tokens": 3});
    host.call(&alice, "POST", "/v1/completions", &body).await.expect(200);
    assert_eq!(host.inference.requests.lock().unwrap().last().unwrap().model.as_str(), "alice/mine");
    assert_eq!(host.call(&alice, "DELETE", "/v1/models/e", &Value::Null).await.status, 403);
    assert_eq!(host.call(&bob, "DELETE", "/v1/models/mine", &Value::Null).await.status, 404);
    host.call(&alice, "DELETE", "/v1/models/mine", &Value::Null).await.expect(200);
    assert_eq!(ids(&alice).await, ["e"]);
}

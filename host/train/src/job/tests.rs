use super::*;
use proptest::prelude::*;
use serde_json::json;

/// The minimal job of the reference page, every key of it.
const FULL: &str = r#"
method = "sft"
seed = 1
[model]
base = "smollm2"
adapter = { kind = "lora", rank = 8, alpha = 16, targets = ["q_proj", "v_proj"] }
[data]
train = "train.jsonl"
eval = "eval.jsonl"
shuffle = true
packing = true
max_tokens = 512
[optim]
steps = 200
batch = 8
accumulate = 2
learning_rate = 2e-4
schedule = "cosine"
warmup_steps = 10
kind = "adamw"
betas = [0.9, 0.999]
eps = 1e-8
weight_decay = 0.0
clip_norm = 1.0
precision = "f32"
[checkpoint]
every = 50
[output]
name = "my-model"
dir = "out"
"#;

fn refused(value: &Value) -> (String, String) {
    match Job::from_json(value) {
        Err(TrainError::Spec { field, reason }) => (field, reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_documented_job_is_read_and_outlined() {
    let job = Job::from_toml(FULL).unwrap();
    let adapter = job.model.adapter.as_ref().unwrap();
    assert_eq!((adapter.rank, adapter.scale(), adapter.targets.len()), (8, 2.0, 2));
    assert_eq!((job.optim.steps, job.optim.epochs, job.optim.accumulate), (Some(200), None, 2));
    assert_eq!((job.optim.learning_rate, job.optim.clip_norm, job.checkpoint.keep), (2e-4, 1.0, 2));
    let outline = job.outline();
    assert_eq!(outline.data, ["train.jsonl", "eval.jsonl"]);
    assert_eq!((outline.output.as_deref(), outline.steps), (Some("my-model"), Some(200)));
    assert_eq!(Job::from_json(&outline.effective).unwrap(), job);
    assert_eq!(Job::from_toml(&job.to_toml()).unwrap(), job);
}

#[test]
fn every_method_has_defaults_that_read_back() {
    for method in Method::ALL {
        let mut value = json!({"method": method.name(), "model": {"base": "m"}, "data": {"train": "t"}});
        if *method == Method::Grpo {
            value["grpo"] = json!({"rewards": ["exact-answer", {"component": "style", "weight": 0.5}]});
        }
        let job = Job::from_json(&value).unwrap();
        assert_eq!(Job::from_json(&job.to_json()).unwrap(), job, "{method}");
        assert_eq!(Job::from_toml(&job.to_toml()).unwrap(), job, "{method}");
        assert_eq!(job.optim.epochs, Some(1.0));
        assert_eq!(job.data.packing, method.trains_on_documents(), "{method}");
    }
}

#[test]
fn devices_are_named_as_pytorch_names_them() {
    let of = |device: &str| json!({"method": "sft", "model": {"base": "m"}, "data": {"train": "t"}, "optim": {"device": device}});
    for (text, device) in [("cpu", Device::Cpu), ("cuda", Device::Cuda(0)), ("cuda:3", Device::Cuda(3))] {
        let job = Job::from_json(&of(text)).unwrap();
        assert_eq!(job.optim.device, device);
        assert_eq!(job.to_json()["optim"]["device"], text);
        assert_eq!(Job::from_toml(&job.to_toml()).unwrap(), job);
    }
    for text in ["gpu", "cuda:", "cuda:+1", "cuda:64", "cuda:99999999999999999999", "CUDA"] {
        let (field, reason) = refused(&of(text));
        assert_eq!(field, "optim.device");
        assert!(reason.ends_with("is none of cpu, cuda, cuda:N"), "{reason}");
    }
}

#[test]
fn a_model_from_scratch_keeps_its_configuration_but_for_nulls() {
    let value = json!({"method": "pretrain", "data": {"rows": [{"text": "a", "extra": null}]},
        "model": {"tokenizer": "t", "config": {"model_type": "llama", "hidden_size": 64, "rope_scaling": null}}});
    let job = Job::from_json(&value).unwrap();
    assert_eq!(job.model.config, Some(json!({"model_type": "llama", "hidden_size": 64})));
    assert_eq!(job.data.train, DataName::Rows(vec![json!({"text": "a"})]));
    assert!(job.outline().data.is_empty());
    assert_eq!(Job::from_toml(&job.to_toml()).unwrap(), job);
    let mut trained = value.clone();
    trained["model"]["tokenizer"] = Value::Null;
    trained["model"]["new_tokenizer"] = json!({"vocabulary": 512});
    let job = Job::from_json(&trained).unwrap();
    assert_eq!(job.model.new_tokenizer.as_ref().unwrap().vocabulary, 512);
    assert_eq!(Job::from_toml(&job.to_toml()).unwrap(), job);
    trained["model"]["tokenizer"] = json!("t");
    assert_eq!(refused(&trained).0, "model.tokenizer");
}

#[test]
fn what_is_wrong_is_named_by_path() {
    let base = || Job::from_toml(FULL).unwrap().to_json();
    let rows: &[(&str, &[&str], Value, &str, &str)] = &[
        ("misspelt", &["optim", "learning_rat"], json!(1), "optim.learning_rat", "did you mean `learning_rate`"),
        ("misspelt table", &["optin"], json!({}), "optin", "did you mean `optim`"),
        ("far from all", &["data", "zzzzzzzz"], json!(1), "data.zzzzzzzz", "known here are train"),
        ("unknown choice", &["optim", "schedule"], json!("cosin"), "optim.schedule", "did you mean `cosine`"),
        ("too large", &["model", "adapter", "rank"], json!(5000), "model.adapter.rank", "not between 1 and 4096"),
        ("negative", &["seed"], json!(-1), "seed", "no whole number"),
        ("fraction", &["optim", "steps"], json!(1.5), "optim.steps", "no whole number"),
        ("another type", &["optim", "eps"], json!("1"), "optim.eps", "expected a number, found a text"),
        ("another method's", &["dpo"], json!({"beta": 0.1}), "dpo", "belongs to method `dpo`"),
        ("two of one", &["optim", "epochs"], json!(2), "optim.epochs", "one of the two"),
        ("no such target", &["model", "adapter", "targets"], json!(["lm_head"]), "model.adapter.targets", "none of"),
        ("betas", &["optim", "betas"], json!([0.9, 1.0]), "optim.betas", "below 1"),
        ("adapter as gguf", &["output", "formats"], json!(["gguf:q8_0"]), "output.formats", "merge = true"),
        ("scratch with base", &["model", "config"], json!({}), "model.config", "has no base"),
        ("warmup", &["optim", "warmup_steps"], json!(201), "optim.warmup_steps", "exceeds"),
        ("most beside steps", &["optim", "max_steps"], json!(9), "optim.max_steps", "bounds epochs"),
    ];
    for (name, path, value, field, reason) in rows {
        let mut job = base();
        let mut place = &mut job;
        for key in *path {
            place = &mut place[key];
        }
        *place = value.clone();
        let (found, why) = refused(&job);
        assert_eq!(found, *field, "{name}: {why}");
        assert!(why.contains(reason), "{name}: {why}");
    }
    for (text, part) in
        [("method = ", "job: "), ("method = \"grpo\"\n[model]\nbase=\"m\"\n[data]\ntrain=\"t\"", "grpo.rewards")]
    {
        let error = Job::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

proptest! {
    /// Whatever JSON comes, the answer is a job that reads back or a typed refusal.
    #[test]
    fn no_json_panics(path in 0usize..6, key in "[a-z_]{1,12}", number in proptest::num::f64::ANY, text in ".{0,12}") {
        let mut job = Job::from_toml(FULL).unwrap().to_json();
        let section = ["model", "data", "optim", "output", "checkpoint", "eval"][path];
        let fields: Vec<String> = job[section].as_object().unwrap().keys().cloned().collect();
        for field in fields.iter().map(String::as_str).chain([key.as_str()]) {
            for value in [json!(number), json!(text), json!([text]), json!({"a": number}), json!(null)] {
                let mut changed = job.clone();
                changed[section][field] = value;
                if let Ok(read) = Job::from_json(&changed) {
                    prop_assert_eq!(Job::from_json(&read.to_json()).unwrap(), read.clone());
                    prop_assert_eq!(Job::from_toml(&read.to_toml()).unwrap(), read);
                }
            }
        }
        job["method"] = json!(text);
        let _ = Job::from_json(&job);
    }
}

#[test]
fn evaluations_ask_held_out_rows_of_methods_that_write() {
    let with = |method: &str, eval: Value, held_out: bool| {
        let mut value = json!({"method": method, "model": {"base": "m"}, "data": {"train": "t"}, "eval": eval});
        if held_out {
            value["data"]["eval_split"] = json!(0.1);
        }
        value
    };
    for (method, eval, held_out, field) in [
        ("sft", json!({"samples": 4}), false, "eval.samples"),
        ("classify", json!({"samples": 4}), true, "eval.samples"),
        ("sft", json!({"samples": 0, "evaluators": ["a"]}), true, "eval.samples"),
        ("sft", json!({"samples": 1_000_000}), true, "eval.samples"),
        ("sft", json!({"evaluators": ["a", "x/a.wasm"]}), true, "eval.evaluators"),
        ("sft", json!({"evaluators": ["x/"]}), true, "eval.evaluators"),
        ("sft", json!({"evaluators": ["a"], "best_by": "b/exact"}), true, "eval.best_by"),
        ("sft", json!({"best_by": "loss"}), true, "eval.best_by"),
        ("sft", json!({"evaluator": ["a"]}), true, "eval.evaluator"),
    ] {
        assert_eq!(refused(&with(method, eval.clone(), held_out)).0, field, "{eval}");
    }
    let eval = json!({"evaluators": ["a@1.0.0"], "best_by": "a/exact"});
    let job = Job::from_json(&with("dpo", eval, true)).unwrap();
    assert_eq!((job.eval.samples, job.eval.show, job.eval.max_tokens, job.eval.temperature), (32, 4, 128, 0.0));
    assert_eq!(job.outline().evaluators, ["a@1.0.0"]);
    assert_eq!(Job::from_toml(&job.to_toml()).unwrap(), job);
    let job = Job::from_json(&with("classify", json!({}), true)).unwrap();
    assert_eq!(job.eval.samples, 0);
    assert_eq!(["dir/my.wasm", "a@2.0.0", "b"].map(label), ["my", "a", "b"]);
}

//! Whole jobs: from a file of rows to a result that loads.

use super::super::HostTrainer;
use super::*;
use crate::network::NetworkOptions;
use std::path::PathBuf;
use stockade_core::train::{Ending, Evaluators, Metric, Resolver, Rewards, Rollout, Sample, Score, Task, Trainer};
use stockade_model::ModelConfig;

/// Models are fixtures, data are files of a folder.
struct Files(PathBuf);

impl Resolver for Files {
    fn model(&self, name: &str) -> Result<PathBuf, TrainError> {
        Ok(reference_file(&format!("fixtures/{name}")).expect("looked for before"))
    }

    fn data(&self, name: &str) -> Result<PathBuf, TrainError> {
        Ok(self.0.join(name))
    }
}

/// The share of an answer's characters that are the letter e.
struct LetterE;

impl Rewards for LetterE {
    fn score(&self, component: &str, rollouts: &[Rollout]) -> Result<Vec<Option<f64>>, TrainError> {
        assert_eq!(component, "letter-e");
        let share = |text: &str| {
            let n = text.chars().count();
            text.chars().filter(|c| *c == 'e').count() as f64 / n.max(1) as f64
        };
        Ok(rollouts.iter().map(|rollout| Some(share(&rollout.completion))).collect())
    }
}

/// Whether an answer is the expected one, but for the space before it.
impl Evaluators for LetterE {
    fn metrics(&self, component: &str) -> Result<Vec<Metric>, TrainError> {
        match component {
            "same" => Ok(vec![Metric { name: "exact".into(), higher_is_better: true }]),
            _ => Err(TrainError::Evaluator { component: component.into(), reason: "is not there".into() }),
        }
    }

    fn evaluate(&self, _: &str, samples: &[Sample]) -> Result<Vec<Vec<Score>>, TrainError> {
        let score = |sample: &Sample| {
            assert_eq!(sample.input["completion"], *sample.expected.as_ref().unwrap());
            let same = sample.expected.as_ref().and_then(Value::as_str) == Some(sample.output.trim());
            vec![Score { metric: "exact".into(), value: f64::from(u8::from(same)) }]
        };
        Ok(samples.iter().map(score).collect())
    }
}

struct Home {
    folder: tempfile::TempDir,
    listener: Listener,
}

impl Home {
    /// `None` where the fixtures are missing.
    fn new() -> Option<Self> {
        reference_file("fixtures/llama-micro")?;
        Some(Self { folder: tempfile::tempdir().unwrap(), listener: Listener::default() })
    }

    fn write(&self, name: &str, rows: &[Value]) {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        std::fs::write(self.folder.path().join(name), lines.join("\n")).unwrap();
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn run(&self, spec: &Value) -> Result<Ending, TrainError> {
        let (resolver, folder) = (Files(self.folder.path().to_owned()), self.out());
        HostTrainer::default().run(Task {
            spec,
            folder: &folder,
            resolver: &resolver,
            observer: &self.listener,
            rewards: &LetterE,
            evaluators: &LetterE,
            threads: 2,
        })
    }

    fn losses(&self) -> Vec<f64> {
        self.listener.steps.lock().unwrap().iter().map(|metrics| metrics.loss).collect()
    }
}

fn questions() -> Vec<Value> {
    (0..12)
        .map(|i| json!({ "prompt": format!("Who is number {i}?"), "completion": format!("The king of {i}") }))
        .collect()
}

fn finetuning(more: Value) -> Value {
    let mut spec = json!({
        "method": "sft",
        "model": { "base": "llama-micro" },
        "data": { "train": "train.jsonl", "eval": "train.jsonl", "max_tokens": 64 },
        "optim": { "steps": 24, "batch": 4, "learning_rate": 1e-2, "clip_norm": 1.0 },
        "checkpoint": { "every": 8 },
    });
    for (section, values) in more.as_object().unwrap() {
        for (key, value) in values.as_object().unwrap() {
            spec[section][key] = value.clone();
        }
    }
    spec
}

#[test]
fn a_finetuned_model_loads_and_answers_as_the_run_said() {
    let Some(home) = Home::new() else { return };
    home.write("train.jsonl", &questions());
    let ending = home.run(&finetuning(json!({ "output": { "dtype": "f32" } }))).unwrap();
    let Ending::Finished { path, base: None, steps: 24, eval_loss: Some(eval_loss), .. } = ending else {
        panic!("{ending:?}")
    };
    let losses = home.losses();
    assert!(losses[23] < 0.7 * losses[0], "{losses:?}");
    // What is on disk has the loss that was logged: weights, tokenizer and configuration are those of the run.
    let out = home.out();
    assert_eq!(path, out);
    let again = home.run(&finetuning(json!({ "output": { "dtype": "f32" } }))).unwrap();
    assert!(matches!(again, Ending::Finished { eval_loss: Some(loss), .. } if loss == eval_loss));
    let checkpoint = Checkpoint::open(&path).unwrap();
    let network = Network::open(&checkpoint, &checkpoint.config().unwrap(), &NetworkOptions::default()).unwrap();
    for (name, values) in weights_of(&out.join("checkpoints/step-00000024")) {
        assert_eq!(network.tensor(&name).unwrap(), values, "{name}");
    }
    let job = std::fs::read_to_string(out.join("job.toml")).unwrap();
    assert!(job.contains("# examples: ") && job.contains("# train.jsonl: ") && job.contains("seed = 1"), "{job}");
    assert_eq!(Job::from_toml(&job).unwrap().optim.steps, Some(24), "job.toml is a job");
}

/// Weights of a checkpoint as it would be served.
fn weights_of(checkpoint: &Path) -> Vec<(String, Vec<f32>)> {
    let checkpoint = Checkpoint::open(&checkpoint.join("model")).unwrap();
    checkpoint.tensors().map(|tensor| (tensor.name.clone(), checkpoint.read_f32(tensor).unwrap())).collect()
}

#[test]
fn an_adapter_is_a_folder_for_its_base_or_merged_into_it() {
    for (kind, merged) in [("lora", false), ("dora", false), ("qlora", false), ("lora", true)] {
        let Some(home) = Home::new() else { return };
        home.write("train.jsonl", &questions());
        let adapter = json!({ "kind": kind, "rank": 4 });
        let spec = finetuning(json!({ "model": { "adapter": adapter }, "output": { "merge": merged } }));
        let Ending::Finished { path, base, .. } = home.run(&spec).unwrap() else { panic!("it ended") };
        let losses = home.losses();
        assert!(losses[23] < 0.9 * losses[0], "{kind}: {losses:?}");
        assert_eq!(base.is_some(), !merged, "{kind}");
        assert_eq!(path.join("adapter_model.safetensors").exists(), !merged, "{kind}");
        assert_eq!(path.join("model.safetensors").exists(), merged, "{kind}");
    }
}

#[test]
fn a_model_from_scratch_learns_a_text() {
    // With a tokenizer that is there, and with one that is trained on the same text first.
    for (key, tokenizer) in [("tokenizer", json!("llama-micro")), ("new_tokenizer", json!({ "vocabulary": 300 }))] {
        let Some(home) = Home::new() else { return };
        let text = "The quick brown fox jumps over the lazy dog.\n\n".repeat(40);
        std::fs::write(home.folder.path().join("train.txt"), text).unwrap();
        let config = json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true, "hidden_act": "silu",
        });
        let spec = json!({
            "method": "pretrain",
            "model": { "config": config, key: tokenizer },
            "data": { "train": "train.txt", "max_tokens": 64 },
            "optim": { "steps": 60, "batch": 2, "learning_rate": 3e-3, "kind": "muon", "schedule": "wsd", "warmup_steps": 4 },
        });
        let Ending::Finished { path, .. } = home.run(&spec).unwrap() else { panic!("it ended") };
        let losses = home.losses();
        assert!(losses[0] > 5.0 && losses[59] < 1.0, "{losses:?}");
        let config = ModelConfig::from_folder(&path).unwrap();
        assert_eq!((config.hidden_size, config.layers), (32, 2));
        assert!(path.join("tokenizer.json").exists() && !config.eos_ids.is_empty());
    }
}

#[test]
fn preferences_scores_labels_and_embeddings_end_in_their_models() {
    let pairs: Vec<Value> = (0..6)
        .map(|i| json!({ "prompt": format!("Say {i}. "), "chosen": "Yes, my lord", "rejected": format!("No {i}") }))
        .collect();
    let unpaired: Vec<Value> =
        (0..6).map(|i| json!({ "prompt": format!("Say {i}. "), "completion": "Yes", "label": i % 2 == 0 })).collect();
    let labelled: Vec<Value> = (0..6)
        .map(|i| json!({ "text": format!("word {i}"), "label": if i % 2 == 0 { "even" } else { "odd" } }))
        .collect();
    let similar: Vec<Value> =
        (0..6).map(|i| json!({ "anchor": format!("number {i}"), "positive": format!("{i} is it") })).collect();
    for (method, rows) in [
        ("dpo", &pairs),
        ("ipo", &pairs),
        ("orpo", &pairs),
        ("simpo", &pairs),
        ("kto", &unpaired),
        ("reward", &pairs),
        ("classify", &labelled),
        ("embed", &similar),
    ] {
        let Some(home) = Home::new() else { return };
        home.write("train.jsonl", rows);
        let mut spec = finetuning(json!({ "optim": { "steps": 16, "learning_rate": 3e-3 } }));
        spec["method"] = method.into();
        let Ending::Finished { path, loss, eval_loss, .. } = home.run(&spec).unwrap() else { panic!("it ended") };
        let losses = home.losses();
        assert!(loss < losses[0] && eval_loss.is_some(), "{method}: {losses:?}");
        let checkpoint = Checkpoint::open(&path).unwrap();
        let labels = match checkpoint.config().unwrap().head {
            stockade_model::config::Head::Classifier { labels } => labels,
            _ => Vec::new(),
        };
        let want: &[&str] = match method {
            "reward" => &["reward"],
            "classify" => &["even", "odd"],
            _ => &[],
        };
        assert_eq!(labels, want, "{method}");
    }
}

/// The engine answers with what a run has made, whatever was trained.
#[test]
fn results_with_a_head_are_served() {
    use stockade_core::infer::{ClassifyRequest, EmbedInput, EmbedRequest, Inference};
    let id = stockade_core::ModelId::new("made").unwrap();
    let tenant = stockade_core::TenantId::default_tenant();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served = |path: &Path| {
        let engine = stockade_infer::Engine::new(stockade_infer::Settings::default());
        engine.load_model(id.clone(), path, &Default::default(), &|_, _| {}).unwrap();
        engine
    };
    for adapter in [Value::Null, json!({ "kind": "lora", "rank": 8 }), json!({ "kind": "dora", "rank": 8 })] {
        let Some(home) = Home::new() else { return };
        let words = ["red", "green", "blue", "seven", "nine", "two"];
        let kind = |i: usize| if i < 3 { "colour" } else { "number" };
        let rows: Vec<Value> = (0..6).map(|i| json!({ "text": words[i], "label": kind(i) })).collect();
        home.write("train.jsonl", &rows);
        let mut spec =
            finetuning(json!({ "optim": { "steps": 40, "learning_rate": 1e-2 }, "output": { "dtype": "f32" } }));
        spec["method"] = "classify".into();
        if !adapter.is_null() {
            spec["model"]["adapter"] = adapter.clone();
        }
        let Ending::Finished { path, base, .. } = home.run(&spec).unwrap() else { panic!("it ended") };
        assert!(base.is_none());
        let engine = served(&path);
        let request =
            ClassifyRequest { tenant: tenant.clone(), model: id.clone(), inputs: words.map(String::from).to_vec() };
        let scores = runtime.block_on(engine.classify(request)).unwrap();
        for (i, scores) in scores.iter().enumerate() {
            let best = scores.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            assert_eq!(best.0, kind(i), "{adapter}: {} {scores:?}", words[i]);
        }

        let Some(home) = Home::new() else { return };
        let rows: Vec<Value> =
            (0..6).map(|i| json!({ "anchor": words[i], "positive": format!("it is {}", words[i]) })).collect();
        home.write("train.jsonl", &rows);
        spec["method"] = "embed".into();
        spec["optim"]["batch"] = 6.into();
        spec["embed"] = json!({ "pooling": if adapter.is_null() { "mean" } else { "last" } });
        let Ending::Finished { path, base, .. } = home.run(&spec).unwrap() else { panic!("it ended") };
        assert!(base.is_none());
        let engine = served(&path);
        let embed = |texts: Vec<String>| {
            let inputs = texts.into_iter().map(EmbedInput::Text).collect();
            let request = EmbedRequest { tenant: tenant.clone(), model: id.clone(), inputs, dimensions: None };
            runtime.block_on(engine.embed(request)).unwrap().vectors
        };
        let anchors = embed(words.map(String::from).to_vec());
        let positives = embed(words.iter().map(|word| format!("it is {word}")).collect());
        let likeness = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for (i, anchor) in anchors.iter().enumerate() {
            assert!((likeness(anchor, anchor) - 1.0).abs() < 1e-4, "of length 1");
            let nearest =
                (0..6).max_by(|&a, &b| likeness(anchor, &positives[a]).total_cmp(&likeness(anchor, &positives[b])));
            assert_eq!(nearest, Some(i), "{adapter}");
        }
        let long = embed(vec!["seven ".repeat(2000)]);
        assert!(long[0].iter().all(|x| x.is_finite()), "cut, as the folder says");
    }
}

#[test]
fn answers_that_are_rewarded_become_more_frequent() {
    for adapter in [None, Some(json!({ "kind": "lora", "rank": 8 }))] {
        let Some(home) = Home::new() else { return };
        let prompts: Vec<Value> = (0..4).map(|i| json!({ "prompt": format!("Tell me {i}") })).collect();
        home.write("train.jsonl", &prompts);
        let mut spec = json!({
            "method": "grpo",
            "model": { "base": "llama-micro" },
            "data": { "train": "train.jsonl", "max_tokens": 64 },
            "optim": { "steps": 40, "batch": 2, "learning_rate": if adapter.is_some() { 2e-2 } else { 5e-3 }, "schedule": "constant" },
            "grpo": { "rewards": ["letter-e"], "group": 8, "max_tokens": 12 },
            "checkpoint": { "every": 10 },
        });
        if let Some(adapter) = &adapter {
            spec["model"]["adapter"] = adapter.clone();
        }
        let ending = home.run(&spec).unwrap();
        let rewards: Vec<f64> = {
            let steps = home.listener.steps.lock().unwrap();
            steps.iter().map(|metrics| metrics.more["reward"].as_f64().unwrap()).collect()
        };
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        assert!(mean(&rewards[35..]) > 1.2 * mean(&rewards[..5]), "{adapter:?}: {rewards:?}");
        // Seeds fix everything: prompts, draws, batches of the engine.
        let second = Home::new().unwrap();
        second.write("train.jsonl", &prompts);
        let again = second.run(&spec).unwrap();
        let (Ending::Finished { loss, tokens, .. }, Ending::Finished { loss: loss_again, tokens: tokens_again, .. }) =
            (ending, again)
        else {
            panic!("both ended")
        };
        assert_eq!((loss, tokens), (loss_again, tokens_again));
        assert_eq!(home.losses(), second.losses());
    }
}

#[test]
fn a_run_is_taken_up_inside_an_epoch_at_its_edge_and_inside_packing() {
    let spec = finetuning(json!({
        "data": { "packing": true, "max_tokens": 40 },
        "optim": { "batch": 2, "accumulate": 2, "epochs": 3.0 },
        "model": { "adapter": { "kind": "lora", "rank": 4, "dropout": 0.1 } },
    }));
    let spec = without(spec, "optim", "steps");
    let Some(alone) = Home::new() else { return };
    alone.write("train.jsonl", &questions());
    let Ending::Finished { steps, .. } = alone.run(&spec).unwrap() else { panic!("it ended") };
    let mut paused = Home::new().unwrap();
    paused.write("train.jsonl", &questions());
    for at in 1..steps {
        paused.listener = Listener { interrupt: Some((at, Command::Pause)), ..Listener::default() };
        assert_eq!(paused.run(&spec).unwrap(), Ending::Paused { step: at });
    }
    paused.listener = Listener::default();
    assert!(matches!(paused.run(&spec).unwrap(), Ending::Finished { .. }));
    let weights = |home: &Home| std::fs::read(home.out().join("adapter_model.safetensors")).unwrap();
    assert!(weights(&alone) == weights(&paused), "after {steps} steps");
}

#[test]
fn a_run_ends_with_its_epochs_or_its_most_steps_whichever_comes_first() {
    let optim = json!({ "batch": 2, "epochs": 2.0, "schedule": "linear", "learning_rate": 1e-3 });
    let mut spec = without(finetuning(json!({ "optim": optim })), "optim", "steps");
    let mut steps = |most: Option<u64>| {
        let home = Home::new()?;
        home.write("train.jsonl", &questions());
        spec["optim"]["max_steps"] = json!(most);
        let Ending::Finished { steps, .. } = home.run(&spec).unwrap() else { panic!("it ended") };
        let told = home.listener.steps.lock().unwrap();
        assert!(told.iter().all(|line| line.steps == steps) && told.len() as u64 == steps);
        assert!(told.last().unwrap().lr < 1e-3, "the schedule goes down over these very steps");
        Some(steps)
    };
    let Some(whole) = steps(None) else { return };
    assert!(whole > 3);
    assert_eq!((steps(Some(3)), steps(Some(whole + 50))), (Some(3), Some(whole)));
}

#[test]
fn the_weights_answer_at_evaluations_and_their_answers_are_scored_and_shown() {
    for adapter in [Value::Null, json!({ "kind": "lora", "rank": 8 })] {
        let Some(home) = Home::new() else { return };
        let row = |i: usize| json!({ "prompt": format!("Who is number {i}?"), "completion": "The king of all" });
        home.write("train.jsonl", &(0..4).map(row).collect::<Vec<_>>());
        let eval = json!({ "every": 20, "samples": 3, "show": 2, "max_tokens": 12, "evaluators": ["same"] });
        let rate = if adapter.is_null() { 1e-2 } else { 5e-2 };
        let optim = json!({ "steps": 60, "learning_rate": rate, "schedule": "constant" });
        let spec = finetuning(json!({ "eval": eval, "optim": optim, "model": { "adapter": adapter } }));
        assert!(matches!(home.run(&spec).unwrap(), Ending::Finished { .. }));
        let steps = home.listener.steps.lock().unwrap();
        let scored: Vec<(u64, f64)> =
            steps.iter().filter_map(|line| Some((line.step, line.more.get("eval/same/exact")?.as_f64()?))).collect();
        assert_eq!(scored.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [20, 40, 60]);
        assert_eq!(scored[2].1, 1.0, "what it was trained on it answers by heart: {:?}", steps[59].samples);
        let shown = |line: usize| steps[line].samples.iter().map(|sample| sample.step).collect::<Vec<_>>();
        assert_eq!((shown(0), shown(1), shown(19)), (vec![0, 0], vec![], vec![20, 20]));
        let (first, last) = (&steps[0].samples[1], &steps[59].samples[1]);
        assert_eq!((first.prompt.as_str(), &first.expected), ("Who is number 1?", &last.expected));
        assert_ne!(first.answer, last.answer);
        assert_eq!((last.answer.trim(), last.scores["same/exact"]), ("The king of all", 1.0));
        let notes = home.listener.notes.lock().unwrap();
        assert!(notes.iter().any(|note| note == "before the first step: same/exact 0.0000"), "{notes:?}");
        let log = std::fs::read_to_string(home.out().join("metrics.jsonl")).unwrap();
        assert!(log.contains("The king of all") && log.contains("eval/same/exact"));
        assert!(!home.out().join("policy").exists(), "scratch is gone");
    }
}

#[test]
fn an_evaluator_that_is_not_there_is_refused_before_the_first_step() {
    let Some(home) = Home::new() else { return };
    home.write("train.jsonl", &questions());
    for (eval, want) in [
        (json!({ "evaluators": ["none"] }), "evaluator `none` failed: is not there"),
        (json!({ "evaluators": ["same"], "best_by": "same/other" }), "eval.best_by: there are same/exact"),
    ] {
        let error = home.run(&finetuning(json!({ "eval": eval }))).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
    assert!(home.losses().is_empty());
}

fn without(mut spec: Value, section: &str, key: &str) -> Value {
    spec[section].as_object_mut().unwrap().remove(key);
    spec
}

#[test]
fn little_data_is_enough() {
    let Some(home) = Home::new() else { return };
    home.write("train.jsonl", &questions()[..1]);
    let spec = finetuning(json!({ "optim": { "steps": 3, "batch": 64, "accumulate": 3 } }));
    assert!(matches!(home.run(&spec).unwrap(), Ending::Finished { steps: 3, .. }));
}

#[test]
fn another_learning_rate_is_another_run() {
    let Some(mut home) = Home::new() else { return };
    home.write("train.jsonl", &questions());
    home.listener.interrupt = Some((2, Command::Pause));
    home.run(&finetuning(json!({}))).unwrap();
    let error = home.run(&finetuning(json!({ "optim": { "learning_rate": 1e-4 } }))).unwrap_err();
    assert!(error.to_string().starts_with("cannot resume: the job was "), "{error}");
    home.listener = Listener::default();
    let elsewhere = finetuning(json!({ "checkpoint": { "keep": 5 }, "output": { "dtype": "f32" } }));
    assert!(matches!(home.run(&elsewhere).unwrap(), Ending::Finished { .. }), "where results go changes no number");
}

#[test]
fn a_job_that_cannot_run_says_why() {
    let Some(home) = Home::new() else { return };
    home.write("train.jsonl", &questions());
    let error = home.run(&finetuning(json!({ "data": { "max_tokens": 1 << 20 } }))).unwrap_err();
    assert!(error.to_string().starts_with("data.max_tokens: "), "{error}");
    let error = HostTrainer::default().check(&json!({ "method": "sft", "optm": {} })).unwrap_err();
    assert!(matches!(error, TrainError::Spec { .. }), "{error}");
    let outline = HostTrainer::default().check(&finetuning(json!({}))).unwrap();
    assert_eq!((outline.method.as_str(), outline.steps), ("sft", Some(24)));
}

#[test]
fn the_same_job_gives_the_same_bits() {
    let Some(first) = Home::new() else { return };
    let second = Home::new().unwrap();
    let spec = finetuning(json!({ "data": { "packing": true }, "optim": { "accumulate": 2, "steps": 6 } }));
    for home in [&first, &second] {
        home.write("train.jsonl", &questions());
        home.run(&spec).unwrap();
    }
    assert_eq!(first.losses(), second.losses());
    let weights = |home: &Home| std::fs::read(home.out().join("model.safetensors")).unwrap();
    assert!(weights(&first) == weights(&second));
}

#[test]
fn a_device_that_the_program_was_built_without_is_refused_with_the_job() {
    let spec = json!({ "method": "sft", "model": { "base": "m" }, "data": { "train": "t" },
        "optim": { "device": "cuda" } });
    let answer = HostTrainer::default().check(&spec);
    assert_eq!(answer.is_ok(), candle_core::utils::cuda_is_available());
    if let Err(error) = answer {
        assert!(matches!(&error, TrainError::Spec { field, .. } if field == "optim.device"), "{error}");
    }
}

//! Every recorded run, step by step, through the loop.

use super::*;
use crate::methods::{Answered, References, Turn};
use crate::network::{Device, Packed};
use crate::optimizer::clip_scale;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every recorded run on the host's kernels and on a device.
macro_rules! on_every_device {
    ($($run:ident),* $(,)?) => {
        mod host {
            $(#[test] fn $run() { super::$run(super::Device::Cpu); })*
        }
        mod device {
            $(#[test] fn $run() { super::$run(crate::network::tests::device()); })*
        }
    };
}

on_every_device!(
    full_finetuning_is_the_recorded_run,
    pretraining_is_the_recorded_run,
    an_adapter_is_the_recorded_run,
    accumulation_is_the_recorded_run,
    chat_finetuning_and_packing_are_the_recorded_runs,
    dpo_is_the_recorded_run,
    the_reward_model_is_the_recorded_run,
    grpo_is_the_recorded_run,
);

/// A recorded run; `data` of another one where the file says so.
struct Trace {
    name: &'static str,
    json: Value,
    tensors: BTreeMap<String, Vec<f32>>,
}

impl Trace {
    fn open(name: &'static str) -> Option<Self> {
        let json = |name: &str| -> Option<Value> {
            let path = reference_file(&format!("fixtures/training-traces/{name}.json"))?;
            Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
        };
        // A checkpoint is read from a folder, in which its file has the usual name.
        let folder = tempfile::tempdir().unwrap();
        let expected = reference_file("fixtures/training-traces/expected.safetensors")?;
        std::fs::copy(expected, folder.path().join("model.safetensors")).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let tensors =
            checkpoint.tensors().map(|tensor| (tensor.name.clone(), checkpoint.read_f32(tensor).unwrap())).collect();
        Some(Self { name, json: json(name)?, tensors })
    }

    fn job(&self, method: &str, more: Value) -> Job {
        let hyper = &self.json["hyper"];
        let mut settings = json!({ "optim": {
            "steps": self.json["steps"].as_array().unwrap().len(),
            "learning_rate": hyper["lr"],
            "betas": hyper["betas"],
            "eps": hyper["eps"],
            "weight_decay": hyper["wd"],
            "clip_norm": hyper["clip"],
            "warmup_steps": if hyper["constant"] == true { json!(0) } else { hyper["warmup"].clone() },
            "schedule": if hyper["constant"] == true { "constant" } else { "cosine" },
        }});
        for (section, values) in more.as_object().unwrap() {
            settings[section] = values.clone();
        }
        job(method, settings)
    }

    fn noise(&self, of: &str) -> f64 {
        self.json["noise_f32_vs_f64"][of].as_f64().unwrap()
    }

    /// Runs the job and compares every line of the log, the weights at the end and what the model then answers.
    fn check(&self, job: &Job, network: Network, objective: Objective, steps: Vec<StepData>) {
        let name = self.name;
        let folder = tempfile::tempdir().unwrap();
        let (source, listener) = (Steps(steps), Listener::default());
        let mut run = run(job, objective, network, &source, folder.path(), &listener);
        run.train().unwrap();
        let want = self.json["steps"].as_array().unwrap();
        let got = listener.steps.lock().unwrap();
        assert_eq!(got.len(), want.len(), "{name}");
        for (got, want) in got.iter().zip(want) {
            let step = got.step;
            let of = |key: &str| want[key].as_f64();
            let first = step == 1;
            let loss = of("loss").unwrap();
            let tolerance = if first { 1e-5 * loss.abs() } else { (10.0 * self.noise("loss")).max(1e-4) };
            near(&format!("{name} {step} loss"), got.loss, loss, tolerance);
            let norm = of("grad_norm").unwrap();
            let relative = if first { 3e-5 } else { (10.0 * self.noise("grad_norm_rel")).max(1e-3) };
            near(&format!("{name} {step} grad_norm"), got.grad_norm, norm, relative * norm);
            near(&format!("{name} {step} lr"), got.lr, of("lr").unwrap(), 1e-12);
            for key in ["rewards_chosen", "rewards_rejected", "margin", "accuracy", "score_chosen", "score_rejected"] {
                if let Some(want) = of(key) {
                    near(&format!("{name} {step} {key}"), got.more[key].as_f64().unwrap(), want, 1e-3);
                }
            }
        }
        self.check_end(&run.network);
    }

    fn check_end(&self, network: &Network) {
        let name = self.name;
        let norms = self.json["final_param_norms"].as_object().unwrap();
        assert_eq!(network.parameters().len(), norms.len(), "{name}");
        for (i, parameter) in network.parameters().iter().enumerate() {
            let norm = network.values(i).iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            let key = norms.keys().find(|key| same(key, &parameter.name));
            let want =
                norms[key.unwrap_or_else(|| panic!("{name}: {} of {norms:?}", parameter.name))].as_f64().unwrap();
            near(
                &format!("{name} {}", parameter.name),
                norm,
                want,
                (10.0 * self.noise("final_param_norm_rel")).max(1e-6) * want,
            );
        }
        let probe = ids(&self.json["data"]["probe"]);
        let tolerance = (10.0 * self.noise("probe_logits")).max(1e-4);
        if let Some(want) = self.tensors.get(&format!("{name}.probe_logits")) {
            let positions: Vec<usize> = (probe.len() - 6..probe.len()).collect();
            let packed = Packed { ends: vec![probe.len()], tokens: probe, targets: Vec::new() };
            for (got, want) in network.logits(&packed, &positions).unwrap().iter().zip(want) {
                near(&format!("{name} probe"), f64::from(*got), f64::from(*want), tolerance);
            }
        } else {
            let want = self.tensors[&format!("{name}.probe_score")][0];
            let packed = Packed { ends: vec![probe.len()], targets: Vec::new(), tokens: probe };
            let pass = network.forward(&packed, crate::network::Mode::Eval, true).unwrap();
            let got = network.scores(&pass, &[packed.tokens.len() - 1]).unwrap()[0];
            near(&format!("{name} probe"), f64::from(got), f64::from(want), tolerance);
        }
    }
}

/// PEFT and its trace spell adapters differently.
fn same(recorded: &str, ours: &str) -> bool {
    let plain =
        |name: &str| name.replace("base_model.model.", "").replace(".default", "").replace("model.model.", "model.");
    plain(recorded) == plain(ours)
}

#[track_caller]
fn near(what: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{what}: {got}, expected {want} within {tolerance:.1e}");
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Rows of ids as documents, cut by mask and document ids where there are such.
fn documents(
    ids_of_rows: &Value,
    labels: Option<&Value>,
    mask: Option<&Value>,
    document_ids: Option<&Value>,
) -> Vec<Vec<Example>> {
    let rows = ids_of_rows.as_array().unwrap().iter().enumerate().map(|(r, row)| {
        let tokens = ids(row);
        let length = mask.map_or(tokens.len(), |mask| ids(&mask[r]).iter().filter(|&&m| m == 1).count());
        let document = |t: usize| document_ids.map_or(0, |documents| documents[r][t].as_i64().unwrap());
        let mut examples = Vec::new();
        let mut sequence = Sequence::default();
        for (t, &token) in tokens[..length].iter().enumerate() {
            let first = sequence.tokens.is_empty();
            let label = labels.map_or(i64::from(token), |labels| labels[r][t].as_i64().unwrap());
            sequence.tokens.push(token);
            sequence.labels.push(if first { IGNORE } else { label as i32 });
            if t + 1 == length || document(t + 1) != document(t) {
                examples.push(Example::Text(std::mem::take(&mut sequence)));
            }
        }
        examples
    });
    rows.collect()
}

fn steps(name: &str, of: impl Fn(usize) -> StepData, trace: &Trace) -> Vec<StepData> {
    let n = trace.json["steps"].as_array().unwrap_or_else(|| panic!("{name}")).len();
    (0..n).map(of).collect()
}

fn full_rows(trace: &Value, step: usize) -> StepData {
    StepData { micro_batches: vec![documents(&trace["data"]["input_ids"][step], None, None, None)], epoch: 0 }
}

const DOCUMENTS: Objective = Objective::Documents { z_loss: 0.0 };

fn full_finetuning_is_the_recorded_run(device: Device) {
    let Some(trace) = Trace::open("full") else { return };
    let job = trace.job("sft", json!({}));
    let network = open_on(device, "llama32-tiny", &job, &DOCUMENTS).unwrap();
    let steps = steps("full", |step| full_rows(&trace.json, step), &trace);
    trace.check(&job, network, DOCUMENTS, steps);
}

fn pretraining_is_the_recorded_run(device: Device) {
    let Some(trace) = Trace::open("pretrain") else { return };
    let job = trace.job("pretrain", json!({}));
    let network = open_on(device, "llama-micro", &job, &DOCUMENTS).unwrap();
    let steps = steps("pretrain", |step| full_rows(&trace.json, step), &trace);
    trace.check(&job, network, DOCUMENTS, steps);
}

fn an_adapter_is_the_recorded_run(device: Device) {
    let (Some(trace), Some(full)) = (Trace::open("lora"), Trace::open("full")) else { return };
    let adapter = json!({ "base": "llama32-tiny", "adapter": { "kind": "lora", "rank": 8, "alpha": 16 } });
    let job = trace.job("sft", json!({ "model": adapter }));
    let mut network = open_on(device, "llama32-tiny", &job, &DOCUMENTS).unwrap();
    for i in 0..network.parameters().len() {
        let name = network.parameters()[i].name.replace("base_model.model.", "lora.init.");
        if let Some(values) = trace.tensors.get(&name) {
            network.values_mut(i).copy_from_slice(values);
        }
    }
    network.updated().unwrap();
    let steps = steps("lora", |step| full_rows(&full.json, step), &trace);
    trace.check(&job, network, DOCUMENTS, steps);
}

fn accumulation_is_the_recorded_run(device: Device) {
    let Some(trace) = Trace::open("accumulation") else { return };
    let job = trace.job("sft", json!({}));
    let network = open_on(device, "llama32-tiny", &job, &DOCUMENTS).unwrap();
    let data = &trace.json["data"];
    let of = |step: usize| {
        let rows =
            documents(&data["input_ids"][step], Some(&data["labels"][step]), Some(&data["attention_mask"][step]), None);
        StepData { micro_batches: rows.chunks(2).map(<[_]>::to_vec).collect(), epoch: 0 }
    };
    let steps = steps("accumulation", of, &trace);
    trace.check(&job, network, DOCUMENTS, steps);
}

fn chat_finetuning_and_packing_are_the_recorded_runs(device: Device) {
    for name in ["sft", "packing"] {
        let Some(trace) = Trace::open(name) else { return };
        let job = trace.job("sft", json!({}));
        let network = open_on(device, "llama32-tiny", &job, &DOCUMENTS).unwrap();
        let data = &trace.json["data"];
        let rows =
            documents(&data["input_ids"], data.get("labels"), data.get("attention_mask"), data.get("document_ids"));
        let step = StepData { micro_batches: vec![rows], epoch: 0 };
        let steps = steps(name, |_| step.clone(), &trace);
        trace.check(&job, network, DOCUMENTS, steps);
    }
}

fn pairs(trace: &Value) -> StepData {
    let pairs = trace["data"]["pairs"].as_array().unwrap().iter().map(|pair| {
        let prompt = ids(&pair["prompt"]);
        let of = |answer: &str| sequence(&[prompt.clone(), ids(&pair[answer])].concat(), prompt.len());
        Example::Pair { chosen: of("chosen"), rejected: of("rejected"), margin: None }
    });
    step_of(pairs.collect(), 64)
}

fn dpo_is_the_recorded_run(device: Device) {
    let Some(trace) = Trace::open("dpo") else { return };
    let job = trace.job("dpo", json!({}));
    let objective = Objective::of(&job, 0);
    let network = open_on(device, "llama32-tiny", &job, &objective).unwrap();
    let step = pairs(&trace.json);
    let steps = steps("dpo", |_| step.clone(), &trace);
    trace.check(&job, network, objective, steps);
}

fn the_reward_model_is_the_recorded_run(device: Device) {
    let (Some(trace), Some(dpo)) = (Trace::open("reward"), Trace::open("dpo")) else { return };
    let job = trace.job("reward", json!({}));
    let objective = Objective::of(&job, 0);
    let mut network = open_on(device, "llama32-tiny", &job, &objective).unwrap();
    let head = (0..network.parameters().len()).find(|&i| network.parameters()[i].name == "score.weight").unwrap();
    network.values_mut(head).copy_from_slice(&trace.tensors["reward.score.weight"]);
    network.updated().unwrap();
    let step = pairs(&dpo.json);
    let steps = steps("reward", |_| step.clone(), &trace);
    trace.check(&job, network, objective, steps);
}

fn grpo_is_the_recorded_run(device: Device) {
    let Some(trace) = Trace::open("grpo") else { return };
    let grpo = json!({ "rewards": ["r"], "group": 4, "loss": "grpo", "beta": 0.04, "max_tokens": 64 });
    let job = trace.job("grpo", json!({ "grpo": grpo }));
    let objective = Objective::of(&job, 0);
    let mut network = open_on(device, "llama32-tiny", &job, &objective).unwrap();
    let data = &trace.json["data"];
    let floats =
        |value: &Value| value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect::<Vec<_>>();
    let rewards: Vec<Option<f64>> = data["rewards"].as_array().unwrap().iter().map(Value::as_f64).collect();
    let advantages = crate::loss::advantages(&rewards, 4, crate::loss::RewardScale::Group).values;
    let answered = data["completions"].as_array().unwrap().iter().enumerate().map(|(i, completion)| {
        near("advantage", advantages[i].unwrap(), data["advantages"][i].as_f64().unwrap(), 1e-6);
        Answered {
            advantage: advantages[i],
            old: Some(floats(&data["old_logprobs"][i])),
            reference: Some(floats(&data["reference_logprobs"][i])),
            ..Answered::new(&ids(&completion["prompt"]), &ids(&completion["completion"]))
        }
    });
    let rollouts = vec![answered.collect()];
    let mut optimizer = Optimizer::new(network.parameters(), settings::optimizer(&job));
    let references = References::default();
    for (step, want) in trace.json["steps"].as_array().unwrap().iter().enumerate() {
        let mut gradients = network.gradients();
        let mut turn = Turn {
            network: &network,
            references: &references,
            gradients: Some(&mut gradients),
            seed: 1,
            step: step as u64,
        };
        let tally = objective.answers(&mut turn, &rollouts).unwrap();
        let of = |key: &str| want[key].as_f64().unwrap();
        near("loss", tally.loss, of("loss"), 1e-5);
        near("clip ratio", tally.means()["clip_ratio"].as_f64().unwrap(), of("clipped_fraction"), 1e-6);
        let norm = gradients.norm();
        near("norm", norm, of("grad_norm"), 1e-4 * norm);
        if step == 0 {
            for (i, parameter) in network.parameters().iter().enumerate() {
                let norm = gradients.get(i).iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
                let want = trace.json["gradient_norms_step_0_before_clipping"][&parameter.name].as_f64().unwrap();
                near(&parameter.name, norm, want, 1e-4 * want);
            }
        }
        let pool = Arc::clone(network.pool());
        optimizer.begin(1.0);
        for i in 0..network.parameters().len() {
            optimizer.update(i, network.values_mut(i), gradients.get(i), clip_scale(norm, 1.0), &pool);
        }
        network.updated().unwrap();
    }
    trace.check_end(&network);
}

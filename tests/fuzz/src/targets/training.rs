//! Job files: whatever they say, reading ends in a job or in the path of what is wrong, and a job reads back from both of
//! its forms.

use crate::Target;
use serde_json::Value;
use stockade_core::train::TrainError;
use stockade_train::job::Job;

/// A job file in TOML or, where the bytes are JSON, the body of a job.
pub const JOB: Target = Target {
    name: "job",
    run: |bytes| {
        let read = match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => Job::from_json(&value),
            Err(_) => match std::str::from_utf8(bytes) {
                Ok(text) => Job::from_toml(text),
                Err(_) => return,
            },
        };
        match read {
            Ok(job) => {
                assert_eq!(Job::from_json(&job.to_json()).expect("its JSON is a job"), job);
                assert_eq!(Job::from_toml(&job.to_toml()).expect("its TOML is a job"), job);
                assert_eq!(job.outline().effective, job.to_json());
            }
            Err(TrainError::Spec { .. }) => {}
            Err(other) => panic!("a job file alone cannot lead to: {other}"),
        }
    },
    seeds: || [FINETUNING, REWARDED, SCRATCH, AS_JSON].map(|text| text.as_bytes().to_vec()).to_vec(),
    words: &[
        "method = ",
        "\"grpo\"",
        "\"pretrain\"",
        "[eval]\n",
        "[optim]\n",
        "[data]\n",
        "rows = [{}]",
        "evaluators = [\"a\"]",
        "best_by = \"a/b\"",
        "eval_split = 0.5",
        "steps = ",
        "adapter = { kind = \"dora\" }",
        "-1",
        "1e999",
        "nan",
        "9223372036854775807",
        "18446744073709551615",
        "1979-05-27T07:32:00Z",
        "[[data]]",
        "{}",
        "\"\"\"",
        "\\u0000",
        "null",
    ],
};

const FINETUNING: &str = r#"method = "sft"
seed = 7
[model]
base = "smollm2"
adapter = { kind = "lora", rank = 8, alpha = 16, targets = ["q_proj", "v_proj"], dropout = 0.1 }
[data]
train = "train.jsonl"
eval_split = 0.1
columns = { prompt = "question" }
[optim]
steps = 200
batch = 8
accumulate = 2
betas = [0.9, 0.95]
schedule = "wsd"
warmup_steps = 10
[eval]
every = 10
samples = 16
evaluators = ["answer-match"]
best_by = "answer-match/exact"
patience = 3
[output]
name = "mine"
merge = true
formats = ["safetensors", "gguf:q4_k_m"]
"#;

const REWARDED: &str = r#"method = "grpo"
[model]
base = "smollm2"
[data]
train = "prompts.jsonl"
[grpo]
rewards = ["exact-answer", { component = "style", weight = 0.5 }]
group = 4
loss = "gspo"
"#;

const SCRATCH: &str = r#"method = "pretrain"
[model]
new_tokenizer = { vocabulary = 4096 }
[model.config]
model_type = "llama"
hidden_size = 64
[data]
rows = [{ text = "a" }, { text = "b" }]
[optim]
kind = "muon"
[optim.muon]
iteration = "polar-express"
"#;

const AS_JSON: &str = r#"{"method": "dpo", "model": {"base": "m", "config": null}, "data": {"train": {"rows": [{"prompt": "a",
"chosen": "b", "rejected": null}]}}, "dpo": {"beta": 0.1}, "optim": {"epochs": 2.5}}"#;

//! Llama Stack's training requests as jobs. What has no meaning here is refused by name, what tunes other machines (FSDP,
//! offloading, loggers) is let be.

use crate::error::ApiError;
use crate::fields::Fields;
use serde_json::{Value, json};
use stockade_core::jobs::Order;
use stockade_core::registry::JobKind;

/// Most steps of a run, as the trainer has it.
const MAX_STEPS: i64 = 100_000_000;

/// `{job_uuid, model, training_config, algorithm_config?, ...}`
pub fn supervised(f: &Fields<'_>) -> Result<Order, ApiError> {
    let mut spec = common(f, "sft", f.need_str("model")?)?;
    if let Some(algorithm) = f.object("algorithm_config")? {
        match algorithm.str("type")? {
            None | Some("LoRA") => spec["model"]["adapter"] = adapter(&algorithm)?,
            Some(_) => return Err(algorithm.wrong("type", "must be LoRA; leave it out to train all weights")),
        }
    }
    order(f, spec)
}

/// `{job_uuid, finetuned_model, algorithm_config, training_config, ...}`: a LoRA over the finetuned model, which an adapter
/// is with its base.
pub fn preference(f: &Fields<'_>) -> Result<Order, ApiError> {
    let algorithm = f.object("algorithm_config")?.ok_or_else(|| f.wrong("algorithm_config", "is required"))?;
    let beta = algorithm.number("beta", 1e-3..=100.0)?.map_or(json!(0.1), |b| json!(f64::from(b)));
    let (method, section) = match algorithm.str("loss_type")? {
        None | Some("sigmoid") => ("dpo", json!({"beta": beta})),
        Some("hinge") => ("dpo", json!({"beta": beta, "loss": "hinge"})),
        Some("ipo") => ("ipo", json!({"beta": beta})),
        Some("kto_pair") => {
            return Err(algorithm.wrong("loss_type", "kto_pair is not served; method kto takes single rows"));
        }
        Some(_) => return Err(algorithm.wrong("loss_type", "must be sigmoid, hinge or ipo")),
    };
    let mut spec = common(f, method, f.need_str("finetuned_model")?)?;
    spec[method] = section;
    spec["model"]["adapter"] = json!({"kind": "lora", "rank": 16, "alpha": 32});
    order(f, spec)
}

fn order(f: &Fields<'_>, spec: Value) -> Result<Order, ApiError> {
    let uuid = f.need_str("job_uuid")?;
    Ok(Order { kind: JobKind::Train, name: Some(uuid.into()), spec, dialect: Value::Null, maker: None })
}

fn common(f: &Fields<'_>, method: &str, base: &str) -> Result<Value, ApiError> {
    let config = f.object("training_config")?.ok_or_else(|| f.wrong("training_config", "is required"))?;
    let data = config.object("data_config")?.ok_or_else(|| config.wrong("data_config", "is required"))?;
    let epochs = config.integer("n_epochs", 1..=1000)?.unwrap_or(1);
    let mut spec = json!({
        "method": method,
        "model": {"base": base},
        "data": {"train": data.need_str("dataset_id")?, "shuffle": data.bool("shuffle")?.unwrap_or(true)},
        "optim": {"batch": data.integer("batch_size", 1..=4096)?.unwrap_or(1)},
        "output": {"name": f.need_str("job_uuid")?},
    });
    if let Some(name) = data.str("validation_dataset_id")? {
        spec["data"]["eval"] = name.into();
    }
    if method == "sft" {
        spec["data"]["packing"] = data.bool("packed")?.unwrap_or(false).into();
        spec["data"]["label_prompt"] = data.bool("train_on_input")?.unwrap_or(false).into();
    }
    if let Some(n) = config.integer("gradient_accumulation_steps", 1..=4096)? {
        spec["optim"]["accumulate"] = n.into();
    }
    spec["optim"]["epochs"] = epochs.into();
    // 0 and absent: the whole epoch.
    if let Some(most) = config.integer("max_steps_per_epoch", 0..=MAX_STEPS)?.filter(|most| *most > 0) {
        spec["optim"]["max_steps"] = epochs.saturating_mul(most).min(MAX_STEPS).into();
    }
    if let Some(optimizer) = config.object("optimizer_config")? {
        match optimizer.str("optimizer_type")? {
            None | Some("adamw") => {}
            // Adam without decay of weights is AdamW with none.
            Some("adam") => {}
            Some(_) => return Err(optimizer.wrong("optimizer_type", "must be adam or adamw")),
        }
        if let Some(lr) = optimizer.value("lr") {
            spec["optim"]["learning_rate"] = lr.clone();
        }
        if let Some(decay) = optimizer.value("weight_decay") {
            spec["optim"]["weight_decay"] = decay.clone();
        }
        if let Some(n) = optimizer.integer("num_warmup_steps", 0..=100_000_000)? {
            spec["optim"]["warmup_steps"] = n.into();
        }
    }
    if let Some("bf16" | "bfloat16") = config.str("dtype")? {
        spec["optim"]["precision"] = "bf16".into();
    }
    Ok(spec)
}

fn adapter(f: &Fields<'_>) -> Result<Value, ApiError> {
    if f.bool("apply_lora_to_output")?.unwrap_or(false) {
        return Err(f.wrong("apply_lora_to_output", "is not served: adapters lie on the layers' projections"));
    }
    let mut targets = Vec::new();
    for (i, name) in f.array("lora_attn_modules")?.into_iter().flatten().enumerate() {
        let name = name.as_str().ok_or_else(|| f.wrong(&format!("lora_attn_modules[{i}]"), "must be a string"))?;
        // torchtune calls the output projection so.
        targets.push(if name == "output_proj" { "o_proj" } else { name });
    }
    if f.bool("apply_lora_to_mlp")?.unwrap_or(false) {
        targets.extend(["gate_proj", "up_proj", "down_proj"]);
    }
    let kind = match (f.bool("quantize_base")?.unwrap_or(false), f.bool("use_dora")?.unwrap_or(false)) {
        (true, true) => return Err(f.wrong("use_dora", "and `quantize_base` exclude each other")),
        (true, false) => "qlora",
        (false, true) => "dora",
        (false, false) => "lora",
    };
    let rank = f.integer("rank", 1..=4096)?.unwrap_or(8);
    let mut adapter =
        json!({"kind": kind, "rank": rank, "alpha": f.integer("alpha", 1..=1_000_000)?.unwrap_or(2 * rank)});
    if !targets.is_empty() {
        adapter["targets"] = json!(targets);
    }
    Ok(adapter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Value {
        json!({
            "n_epochs": 2,
            "max_steps_per_epoch": 10,
            "gradient_accumulation_steps": 4,
            "data_config": {"dataset_id": "d", "batch_size": 2, "shuffle": false, "data_format": "dialog"},
            "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-4, "weight_decay": 0.1, "num_warmup_steps": 3},
        })
    }

    #[test]
    fn a_training_config_becomes_a_job_file() {
        let lora = json!({"type": "LoRA", "rank": 4, "alpha": 8, "lora_attn_modules": ["q_proj", "output_proj"],
            "apply_lora_to_mlp": true, "apply_lora_to_output": false, "use_dora": true});
        let body = json!({"job_uuid": "j", "model": "m", "training_config": config(), "algorithm_config": lora});
        let order = supervised(&Fields::root(&body).unwrap()).unwrap();
        assert_eq!(order.name.as_deref(), Some("j"));
        let spec = order.spec;
        assert_eq!((&spec["optim"]["epochs"], &spec["optim"]["max_steps"]), (&json!(2), &json!(20)));
        assert!(spec["optim"].get("steps").is_none(), "an epoch may be shorter");
        assert_eq!(spec["optim"]["learning_rate"], 1e-4);
        assert_eq!(spec["model"]["adapter"]["kind"], "dora");
        let targets = json!(["q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]);
        assert_eq!(spec["model"]["adapter"]["targets"], targets);
        let body = json!({"job_uuid": "j", "finetuned_model": "m", "training_config": config(),
            "algorithm_config": {"beta": 0.2, "loss_type": "ipo"}});
        let order = preference(&Fields::root(&body).unwrap()).unwrap();
        assert_eq!(order.spec["method"], "ipo");
        assert!(order.spec["data"].get("packing").is_none());
    }
}

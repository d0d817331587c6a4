//! A finetuning request as a job: what OpenAI leaves open is a LoRA of rank 16 on all projections.

use crate::error::ApiError;
use crate::fields::Fields;
use serde_json::{Map, Value, json};
use stockade_core::jobs::Order;
use stockade_core::registry::JobKind;

/// Longest suffix in characters, and bounds of the metadata, as OpenAI has them.
const MAX_SUFFIX: usize = 64;
const MAX_METADATA: usize = 16;

/// Rows beyond which the number of examples decides nothing more.
pub const MAX_COUNTED: u64 = 1 << 17;
/// Epochs that `auto` means, unless the examples are few or many.
const EPOCHS: u64 = 3;
/// Examples that `auto` lets a run see at least, by up to [`MAX_EPOCHS`], and at most.
const LEAST_SEEN: u64 = 100;
const MOST_SEEN: u64 = 25_000;
const MAX_EPOCHS: u64 = 25;
/// Examples for each one that `auto` puts into a batch.
const EXAMPLES_PER_ROW: u64 = 500;
const MAX_BATCH: u64 = 256;
/// Most examples that are computed at once; a batch is several times so many.
const MICRO_BATCH: u64 = 8;
/// Steps in all for each one of warmup, and most of warmup.
const STEPS_PER_WARMUP: u64 = 10;
const MAX_WARMUP: u64 = 100;
/// Most steps between checkpoints, of which there is one for each epoch, and how many stay, as OpenAI has it.
const MAX_EVERY: u64 = 500;
const KEEP: u64 = 3;
/// The rate that a multiplier multiplies.
const SUPERVISED_RATE: f64 = 2e-4;
const DPO_RATE: f64 = 2e-5;
const BETA: f64 = 0.1;

/// `examples` of the training file; `None`: not known.
pub fn read(f: &Fields<'_>, examples: Option<u64>) -> Result<Order, ApiError> {
    let (model, file) = (f.need_str("model")?, f.need_str("training_file")?);
    let suffix = f.str("suffix")?.unwrap_or_default();
    if suffix.chars().count() > MAX_SUFFIX || suffix.chars().any(char::is_control) {
        return Err(f.wrong("suffix", format!("at most {MAX_SUFFIX} characters, none of control")));
    }
    if f.array("integrations")?.is_some_and(|i| !i.is_empty()) {
        return Err(f.wrong("integrations", "are not served: nothing leaves this host"));
    }
    let metadata = metadata(f)?;
    let seed = f.integer("seed", 0..=i64::from(i32::MAX))?.unwrap_or(1);
    let (method, hyper) = method(f)?;
    let hyper = match hyper {
        Some(hyper) => Some(hyper),
        // Where older clients put them.
        None => f.object("hyperparameters")?,
    };
    let nothing = Map::new();
    let nothing = Value::Object(nothing);
    let hyper = match hyper {
        Some(hyper) => hyper,
        None => Fields::of(&nothing, "hyperparameters")?,
    };
    let auto = Auto::of(examples);
    let epochs = integer(&hyper, "n_epochs", 1..=1000, auto.epochs)?;
    let batch = integer(&hyper, "batch_size", 1..=MAX_BATCH as i64, auto.batch)?;
    let steps_an_epoch = examples.unwrap_or(LEAST_SEEN).div_ceil(batch).max(1);
    let rows = (1..=MICRO_BATCH).rev().find(|rows| batch.is_multiple_of(*rows)).unwrap_or(1);
    let warmup = (steps_an_epoch.saturating_mul(epochs) / STEPS_PER_WARMUP).min(MAX_WARMUP);
    let multiplier = number(&hyper, "learning_rate_multiplier", 1e-4..=1e3, 1.0)?;
    let rate = multiplier * if method == "dpo" { DPO_RATE } else { SUPERVISED_RATE };
    let unique = getrandom::u32().unwrap_or_default();
    let mut spec = json!({
        "method": if method == "dpo" { "dpo" } else { "sft" },
        "seed": seed,
        "model": {"base": model, "adapter": {"kind": "lora", "rank": 16, "alpha": 32}},
        // A batch counts examples.
        "data": {"train": file, "packing": false},
        "optim": {
            "epochs": epochs,
            "batch": rows,
            "accumulate": batch / rows,
            "learning_rate": rate,
            "schedule": "cosine",
            "warmup_steps": warmup,
        },
        "checkpoint": {"every": steps_an_epoch.min(MAX_EVERY), "keep": KEEP},
        "output": {"name": format!("ft:{model}:{suffix}:{unique:08x}")},
    });
    let mut shown = json!({"n_epochs": epochs, "batch_size": batch, "learning_rate_multiplier": multiplier});
    if method == "dpo" {
        let beta = number(&hyper, "beta", 1e-3..=100.0, BETA)?;
        spec["dpo"] = json!({"beta": beta});
        shown["beta"] = beta.into();
    }
    if let Some(file) = f.str("validation_file")? {
        spec["data"]["eval"] = file.into();
    }
    let dialect = json!({
        "training_file": file,
        "validation_file": f.str("validation_file")?,
        "method": method,
        "hyperparameters": shown,
        "seed": seed,
        "metadata": metadata,
    });
    Ok(Order { kind: JobKind::Train, name: None, spec, dialect, maker: None })
}

/// What `auto` means for so many examples, by OpenAI's rules as far as they are told.
struct Auto {
    epochs: u64,
    batch: u64,
}

impl Auto {
    fn of(examples: Option<u64>) -> Self {
        let examples = examples.unwrap_or(LEAST_SEEN).max(1);
        let few = (LEAST_SEEN / examples).min(MAX_EPOCHS);
        let many = (MOST_SEEN / examples).max(1);
        Self { epochs: EPOCHS.max(few).min(many), batch: (examples / EXAMPLES_PER_ROW).clamp(1, MAX_BATCH) }
    }
}

/// The method's name and its own hyperparameters.
fn method<'a>(f: &Fields<'a>) -> Result<(&'a str, Option<Fields<'a>>), ApiError> {
    let Some(method) = f.object("method")? else { return Ok(("supervised", None)) };
    let name = method.need_str("type")?;
    if !["supervised", "dpo"].contains(&name) {
        return Err(method.wrong("type", "must be supervised or dpo; /stockade/v1/jobs takes the other methods"));
    }
    let own = method.object(name)?.map(|m| m.object("hyperparameters")).transpose()?.flatten();
    Ok((name, own))
}

fn metadata(f: &Fields<'_>) -> Result<Value, ApiError> {
    let Some(given) = f.object("metadata")? else { return Ok(Value::Null) };
    let map = given.map();
    let sound =
        |(k, v): (&String, &Value)| k.chars().count() <= 64 && v.as_str().is_some_and(|v| v.chars().count() <= 512);
    if map.len() > MAX_METADATA || !map.iter().all(sound) {
        return Err(
            f.wrong("metadata", format!("at most {MAX_METADATA} texts, keys of 64 and values of 512 characters"))
        );
    }
    Ok(Value::Object(map.clone()))
}

fn integer(f: &Fields<'_>, name: &str, range: std::ops::RangeInclusive<i64>, auto: u64) -> Result<u64, ApiError> {
    match f.value(name) {
        Some(Value::String(text)) if text == "auto" => Ok(auto),
        _ => Ok(f.integer(name, range)?.map_or(auto, i64::unsigned_abs)),
    }
}

fn number(f: &Fields<'_>, name: &str, range: std::ops::RangeInclusive<f64>, auto: f64) -> Result<f64, ApiError> {
    match f.value(name) {
        Some(Value::String(text)) if text == "auto" => Ok(auto),
        Some(Value::Number(n)) if n.as_f64().is_some_and(|n| range.contains(&n)) => Ok(n.as_f64().unwrap_or(auto)),
        // Refuses by type and range.
        _ => Ok(f.number(name, range)?.map_or(auto, f64::from)),
    }
}

/// A refusal that names a job file's field names the request's instead.
pub fn in_their_words(mut e: ApiError) -> ApiError {
    let theirs = match e.param.as_deref() {
        Some("spec.model.base") => "model",
        Some("spec.data" | "spec.data.train") => "training_file",
        Some("spec.data.eval") => "validation_file",
        _ => return e,
    };
    e.param = Some(theirs.into());
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_and_both_places_of_hyperparameters_are_read() {
        let read = |body: Value| read(&Fields::root(&body).unwrap(), Some(50));
        let plain = read(json!({"model": "m", "training_file": "f", "hyperparameters": {"n_epochs": "auto"}})).unwrap();
        let optim = &plain.spec["optim"];
        assert_eq!((&optim["epochs"], &optim["batch"], &optim["accumulate"]), (&json!(3), &json!(1), &json!(1)));
        assert_eq!((&optim["learning_rate"], &optim["warmup_steps"]), (&json!(2e-4), &json!(15)));
        assert_eq!(plain.spec["data"]["packing"], false, "a batch counts examples");
        assert_eq!(plain.spec["checkpoint"]["every"], 50, "one for each epoch");
        assert!(plain.spec["output"]["name"].as_str().unwrap().starts_with("ft:m::"));
        let hyper = json!({"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5, "beta": 0.2});
        let dpo = json!({"type": "dpo", "dpo": {"hyperparameters": hyper}});
        let dpo = read(json!({"model": "m", "training_file": "f", "method": dpo, "suffix": "x"})).unwrap();
        assert_eq!((&dpo.spec["method"], &dpo.spec["dpo"]["beta"]), (&json!("dpo"), &json!(0.2)));
        assert_eq!(dpo.spec["optim"]["learning_rate"], 1e-5);
        for (batch, rows, accumulate) in [(4, 4, 1), (8, 8, 1), (24, 8, 3), (10, 5, 2), (11, 1, 11), (256, 8, 32)] {
            let hyper = json!({"batch_size": batch});
            let optim = read(json!({"model": "m", "training_file": "f", "hyperparameters": hyper})).unwrap().spec;
            let optim = &optim["optim"];
            assert_eq!((&optim["batch"], &optim["accumulate"]), (&json!(rows), &json!(accumulate)));
        }
        // Few examples are seen more often, many in larger batches.
        for (examples, epochs, batch) in
            [(0, 25, 1), (3, 25, 1), (10, 10, 1), (33, 3, 1), (1_000, 3, 2), (20_000, 1, 40), (131_072, 1, 256)]
        {
            let auto = Auto::of(Some(examples));
            assert_eq!((auto.epochs, auto.batch), (epochs, batch), "{examples} examples");
        }
        for (bad, param) in [
            (json!({"training_file": "f"}), "model"),
            (json!({"model": "m", "training_file": "f", "method": {"type": "reinforcement"}}), "method.type"),
            (
                json!({"model": "m", "training_file": "f", "hyperparameters": {"n_epochs": 0}}),
                "hyperparameters.n_epochs",
            ),
            (json!({"model": "m", "training_file": "f", "integrations": [{}]}), "integrations"),
            (json!({"model": "m", "training_file": "f", "suffix": "x".repeat(65)}), "suffix"),
            (json!({"model": "m", "training_file": "f", "metadata": {"a": 1}}), "metadata"),
        ] {
            assert_eq!(read(bad).unwrap_err().param.as_deref(), Some(param));
        }
    }
}

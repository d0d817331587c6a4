//! A tool that makes a data set of a part of another, trains on it, and tells later how its job stands. `do` says what:
//!
//! - `begin`: `from`, `set`, `base`, `name`, and `evaluator` if there is to be one; answers with the job's id and how many rows it took
//! - `follow`: `job`, `after`; answers with the status and the losses of the steps after that event
//! - `cancel`, `read`, `append`, `delete`, `list`: one call each, with what the host says

use stockade_guest::prelude::*;
use stockade_guest::{datasets, jobs};

#[derive(Deserialize)]
struct Guest {}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
enum Wanted {
    Begin { from: String, set: String, base: String, name: String, evaluator: Option<String> },
    Follow { job: String, after: u64 },
    Cancel { job: String },
    Read { set: String },
    Append { set: String, row: Value },
    Delete { set: String },
    List,
}

impl Tool for Guest {
    type Arguments = Wanted;

    fn describe(&self) -> ToolSpec {
        ToolSpec::new("train", "Trains on a part of a data set.", &json!({"type": "object"}))
    }
    fn call(&self, wanted: Wanted) -> Result<ToolOutput> {
        let told = match wanted {
            Wanted::Begin { from, set, base, name, evaluator } => {
                begin(&from, &set, &base, &name, evaluator.as_deref())?
            }
            Wanted::Follow { job, after } => follow(&job, after)?,
            Wanted::Cancel { job } => json!(format!("{:?}", jobs::cancel(&job)?.status)),
            Wanted::Read { set } => json!(datasets::rows::<Value>(&set).collect::<Result<Vec<_>>>()?.len()),
            Wanted::Append { set, row } => json!(datasets::append(&set, &[row])?.bytes),
            Wanted::Delete { set } => {
                datasets::delete(&set)?;
                Value::Null
            }
            Wanted::List => {
                let sets = datasets::list(None, 100)?.into_iter().map(|d| d.description.name);
                let made = jobs::list(None, 100)?.into_iter().map(|job| job.id);
                json!({"sets": sets.collect::<Vec<_>>(), "jobs": made.collect::<Vec<_>>()})
            }
        };
        Ok(ToolOutput::ok(told.to_string()))
    }
}

fn begin(from: &str, set: &str, base: &str, name: &str, evaluator: Option<&str>) -> Result<Value> {
    let rows: Vec<Value> = datasets::rows(from).collect::<Result<_>>()?;
    let chosen: Vec<&Value> = rows.iter().step_by(2).collect();
    let provenance = format!("every second row of `{from}`");
    let about = datasets::Description::new(set, datasets::Purpose::PostTraining, "CC0-1.0", provenance);
    datasets::create(&about, &chosen[..1])?;
    datasets::append(set, &chosen[1..])?;
    let mut spec = json!({
        "method": "sft",
        "seed": 3,
        "model": {"base": base, "adapter": {"kind": "lora", "rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}},
        "data": {"train": set, "max_tokens": 128},
        "optim": {"steps": 12, "batch": 2, "learning_rate": 5e-3, "schedule": "constant"},
        "output": {"name": name},
    });
    if let Some(evaluator) = evaluator {
        spec["data"]["eval_split"] = json!(0.25);
        spec["eval"] = json!({"samples": 2, "evaluators": [evaluator]});
    }
    let job = jobs::train(None, &spec)?;
    Ok(json!({"job": job.id, "rows": chosen.len()}))
}

fn follow(job: &str, mut after: u64) -> Result<Value> {
    let mut losses = Vec::new();
    for event in jobs::events(job, after, 100, 10_000)? {
        after = event.number;
        if let jobs::Occurrence::Step(line) = event.what {
            losses.push(serde_json::from_str::<Value>(&line)?["loss"].clone());
        }
    }
    let job = jobs::get(job)?;
    let outcome: Value = serde_json::from_str(&job.outcome)?;
    let failure = job.failure.map(|f| f.message);
    Ok(
        json!({"status": format!("{:?}", job.status), "after": after, "losses": losses, "outcome": outcome, "failure": failure}),
    )
}

stockade_guest::export!(Guest as tool);

//! Jobs, their events and checkpoints as OpenAI shows them. Jobs of every dialect are shown.

use crate::jobs;
use serde_json::{Value, json};
use stockade_core::TenantId;
use stockade_core::registry::{Checkpoint, EventKind, Job, JobEvent, JobStatus};

pub fn job(job: &Job, tenant: &TenantId) -> Value {
    let asked = &job.dialect;
    let data = |i: usize| job.outline.data.get(i).cloned();
    let or = |value: &Value, other: Value| if value.is_null() { other } else { value.clone() };
    let hyper = or(&asked["hyperparameters"], json!({}));
    let method = match asked["method"].as_str() {
        Some(name) => json!({"type": name, name: {"hyperparameters": hyper}}),
        None if job.outline.method == "dpo" => json!({"type": "dpo"}),
        None => json!({"type": "supervised"}),
    };
    let error = job.error.as_ref().map(|e| json!({"code": e.code, "message": e.message, "param": null}));
    json!({
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created_at,
        "error": error,
        "fine_tuned_model": jobs::model_of(job),
        "finished_at": job.finished_at,
        "hyperparameters": hyper,
        "model": job.outline.base.as_deref().unwrap_or_default(),
        "organization_id": tenant,
        "result_files": [],
        "seed": or(&asked["seed"], or(&job.spec["seed"], json!(1))),
        "status": job.status,
        "trained_tokens": job.status.is_terminal().then_some(job.progress.tokens),
        "training_file": or(&asked["training_file"], json!(data(0).unwrap_or_default())),
        "validation_file": or(&asked["validation_file"], json!(data(1))),
        "estimated_finish": estimated_finish(job),
        "integrations": [],
        "metadata": asked["metadata"],
        "method": method,
    })
}

/// As the steps so far foretell it.
fn estimated_finish(job: &Job) -> Option<u64> {
    let p = &job.progress;
    if job.status != JobStatus::Running || p.step == 0 || p.steps == 0 {
        return None;
    }
    let heard = job.lease.as_ref().map(|l| l.heartbeat_ms / 1000)?;
    let left = p.steps.saturating_sub(p.step) as f64 * p.milliseconds as f64 / 1000.0 / p.step as f64;
    Some(heard + left as u64)
}

pub fn event(job: &Job, event: &JobEvent) -> Value {
    let told = &event.event;
    let data = match told.kind {
        EventKind::Metrics => metrics(&told.data),
        _ => told.data.clone(),
    };
    json!({
        "id": format!("ftevent-{}-{}", job.id, event.id),
        "object": "fine_tuning.job.event",
        "created_at": event.created_at,
        "level": if told.data["status"] == "failed" { "error" } else { "info" },
        "message": told.message,
        "data": data,
        "type": if told.kind == EventKind::Metrics { "metrics" } else { "message" },
    })
}

/// OpenAI's names beside ours.
fn metrics(step: &Value) -> Value {
    let mut data = step.clone();
    for (theirs, ours) in [("train_loss", "loss"), ("valid_loss", "eval_loss"), ("total_steps", "steps")] {
        if !step[ours].is_null() {
            data[theirs] = step[ours].clone();
        }
    }
    data
}

pub fn checkpoint(job: &Job, c: &Checkpoint) -> Value {
    let step = c.saved.step;
    json!({
        "id": format!("ftckpt-{}-{step}", job.id),
        "object": "fine_tuning.job.checkpoint",
        "created_at": c.created_at,
        "fine_tuned_model_checkpoint": jobs::checkpoint_name(job, step),
        "fine_tuning_job_id": job.id,
        "metrics": {"step": step, "train_loss": c.loss, "valid_loss": c.saved.eval_loss, "full_valid_loss": c.saved.eval_loss},
        "step_number": step,
    })
}

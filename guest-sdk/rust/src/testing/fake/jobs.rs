//! Jobs that do nothing and follow a script: one goes on by one event each time that the plugin looks.

use super::{Error, Result, missing, with};
use crate::jobs::{Event, Failure, Job, Kind, Occurrence, Progress, Status};
use serde_json::{Map, Value, json};
use std::collections::VecDeque;

/// What becomes of a job.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// Of its steps.
    pub losses: Vec<f64>,
    /// Why it fails after them.
    pub fails: Option<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self { losses: vec![3.0, 2.0, 1.0], fails: None }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct JobFake {
    job: Job,
    log: Vec<Event>,
    /// Losses of the steps to come.
    ahead: VecDeque<f64>,
    fails: Option<String>,
}

impl JobFake {
    fn tell(&mut self, message: &str, what: Occurrence) {
        let number = self.log.len() as u64 + 1;
        self.log.push(Event { number, at: super::system::now(), message: message.into(), what });
    }

    fn come_to(&mut self, status: Status) {
        self.job.status = status;
        if status.is_end() {
            self.job.finished_at = Some(super::system::now());
        }
        self.tell("the job's status", Occurrence::Status(status));
    }

    fn go_on(&mut self) {
        match self.job.status {
            Status::Queued => {
                self.job.started_at.get_or_insert_with(super::system::now);
                self.come_to(Status::Running);
            }
            Status::Running => match (self.ahead.pop_front(), self.fails.take()) {
                (Some(loss), fails) => {
                    self.fails = fails;
                    self.step(loss);
                }
                (None, Some(message)) => {
                    self.job.failure = Some(Failure { code: "invalid_request".into(), message });
                    self.come_to(Status::Failed);
                }
                (None, None) => {
                    let Progress { steps, tokens, loss, .. } = self.job.progress;
                    let outcome = json!({"model": self.job.model, "steps": steps, "tokens": tokens, "loss": loss});
                    self.job.outcome = outcome.to_string();
                    self.come_to(Status::Succeeded);
                }
            },
            _ => {}
        }
    }

    fn step(&mut self, loss: f64) {
        let progress = &mut self.job.progress;
        progress.step += 1;
        progress.tokens += 100;
        progress.loss = Some(loss);
        progress.share = progress.step as f32 / progress.steps as f32;
        let line = json!({"step": progress.step, "steps": progress.steps, "loss": loss, "tokens": progress.tokens});
        self.tell("a step", Occurrence::Step(line.to_string()));
    }
}

fn change<T>(id: &str, f: impl FnOnce(&mut JobFake) -> Result<T>) -> Result<T> {
    with(|s| s.jobs.get_mut(id).map(f)).unwrap_or_else(|| Err(missing("job", id)))
}

/// What `wish` makes of a job of each status; `None`: the job has ended.
fn ask(id: &str, wish: impl FnOnce(Status) -> Option<Status>) -> Result<Job> {
    change(id, |fake| {
        let ended = || Error::Conflict(format!("the job has ended: it is {:?}", fake.job.status));
        let status = wish(fake.job.status).ok_or_else(ended)?;
        if status != fake.job.status {
            fake.come_to(status);
        }
        Ok(fake.job.clone())
    })
}

pub fn submit(kind: Kind, name: Option<&str>, spec: &str) -> Result<Job> {
    if kind != Kind::Train {
        return Err(Error::Unavailable(format!("a job of kind {kind:?}")));
    }
    let spec: Map<String, Value> = serde_json::from_str(spec)?;
    let output = spec.get("output").and_then(|o| o["name"].as_str()).or(name).unwrap_or("model").to_string();
    let script = with(|s| s.job_scripts.pop_front()).unwrap_or_default();
    let id = with(|s| {
        s.submitted.push(Value::Object(spec));
        format!("job_{}", s.jobs.len() + 1)
    });
    let job = Job {
        id: id.clone(),
        kind,
        name: name.map(String::from),
        status: Status::Queued,
        progress: Progress {
            share: 0.0,
            step: 0,
            steps: script.losses.len() as u64,
            tokens: 0,
            loss: None,
            eval_loss: None,
        },
        model: Some(output),
        outcome: "null".into(),
        failure: None,
        created_at: super::system::now(),
        started_at: None,
        finished_at: None,
    };
    let mut fake = JobFake { job: job.clone(), log: Vec::new(), ahead: script.losses.into(), fails: script.fails };
    fake.tell("the job is queued", Occurrence::Status(Status::Queued));
    with(|s| s.jobs.insert(id, fake));
    Ok(job)
}

pub fn get(id: &str) -> Result<Job> {
    change(id, |fake| {
        fake.go_on();
        Ok(fake.job.clone())
    })
}

pub fn list(after: Option<&str>, limit: u32) -> Result<Vec<Job>> {
    Ok(with(|s| {
        let jobs = s.jobs.iter().filter(|(id, _)| after.is_none_or(|a| id.as_str() > a));
        jobs.take(limit as usize).map(|(_, fake)| fake.job.clone()).collect()
    }))
}

pub fn events(id: &str, after: u64, limit: u32, _wait_ms: u32) -> Result<Vec<Event>> {
    change(id, |fake| {
        if fake.log.last().is_none_or(|last| last.number <= after) {
            fake.go_on();
        }
        Ok(fake.log.iter().filter(|e| e.number > after).take(limit as usize).cloned().collect())
    })
}

pub fn pause(id: &str) -> Result<Job> {
    ask(id, |status| (!status.is_end()).then_some(Status::Paused))
}

pub fn resume(id: &str) -> Result<Job> {
    ask(id, |status| match status {
        Status::Paused => Some(Status::Queued),
        status => (!status.is_end()).then_some(status),
    })
}

pub fn cancel(id: &str) -> Result<Job> {
    ask(id, |status| match status {
        Status::Succeeded | Status::Failed => None,
        _ => Some(Status::Cancelled),
    })
}

pub fn delete(id: &str) -> Result<()> {
    change(id, |fake| match fake.job.status.is_end() {
        true => Ok(()),
        false => Err(Error::Conflict("the job has not ended: cancel it first".into())),
    })?;
    with(|s| s.jobs.remove(id));
    Ok(())
}

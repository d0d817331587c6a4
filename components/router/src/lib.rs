//! Chooses how a turn is answered: model, instructions, tools and sampling, by rules, by examples or by asking a model.
//!
//! A route is settings, not another orchestrator: components of that kind cannot call each other. What the route has set,
//! the tool loop of [`agent::rounds`] runs.

mod choose;

use agent::{Instructions, Limits, Rules, Steps, approval};
use choose::{Choice, Way};
use stockade_guest::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Router {
    /// What a turn may become; at least one.
    routes: Vec<Route>,
    /// The route where nothing else decides.
    default: String,
    /// What decides, tried in this order.
    #[serde(default = "rules")]
    by: Vec<Way>,
    /// The embedding model for similarity.
    #[serde(default = "minilm")]
    embedder: String,
    /// Least cosine of the best example.
    #[serde(default = "threshold")]
    threshold: f32,
    /// The model that is asked to choose; the empty name takes the host's default.
    #[serde(default)]
    classifier: String,
    /// Tools whose calls wait for a person's approval, on every route; `*` at a name's end stands for anything.
    #[serde(default)]
    approve: Vec<String>,
    #[serde(default)]
    limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    name: String,
    /// What it is for; the classifying model reads it.
    #[serde(default)]
    description: String,
    /// Words of the last message, whatever their case.
    #[serde(default)]
    keywords: Vec<String>,
    /// A regular expression that the last message matches.
    #[serde(default)]
    pattern: Option<String>,
    /// Messages that belong here.
    #[serde(default)]
    examples: Vec<String>,
    /// The model; without it the application's.
    #[serde(default)]
    model: Option<String>,
    /// A system prompt.
    #[serde(default)]
    system: Option<String>,
    /// The tenant's tools that the model may call; without it all that are granted.
    #[serde(default)]
    tools: Option<Vec<String>>,
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    max_tokens: Option<u32>,
}

fn rules() -> Vec<Way> {
    vec![Way::Rules]
}
fn minilm() -> String {
    "minilm".into()
}
fn threshold() -> f32 {
    0.4
}

/// Where a turn was interrupted: it goes on by the route that was chosen.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paused {
    choice: Choice,
    /// The state of the tool loop.
    rounds: String,
}

impl Orchestrator for Router {
    fn run(&self, turn: Turn) -> Result<Outcome> {
        agent::finish(self.reply(turn))
    }
}

impl Router {
    fn reply(&self, mut turn: Turn) -> Result<Outcome> {
        let (paused, answer) = approval::resume::<Paused>(turn.resume.take())?;
        let mut steps = Steps::default();
        let told = steps.start(StepKind::Route, "route", &json!({}))?;
        let choice = match answer {
            None => choose::choose(self, &turn)?,
            Some(answer) => {
                turn.resume = Some(Resumption { state: paused.rounds, answer });
                paused.choice
            }
        };
        let route = self.routes.iter().find(|r| r.name == choice.route);
        let route = route.ok_or_else(|| Error::Invalid(format!("config: no route `{}`", choice.route)))?;
        told.done(&json!(choice))?;
        if let Some(model) = &route.model {
            turn.model.clone_from(model);
        }
        turn.sampling.temperature = route.temperature.or(turn.sampling.temperature);
        // The application's bound holds where it is the lower one.
        turn.sampling.max_tokens = match (route.max_tokens, turn.sampling.max_tokens) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        let instructions = Instructions { system: route.system.as_deref(), prompt: None };
        let messages = instructions.prepend(std::mem::take(&mut turn.messages), None)?;
        let rules = Rules {
            tools: route.tools.as_deref(),
            limits: self.limits,
            approve: &self.approve,
            told: steps.told,
            ..Rules::default()
        };
        match agent::converse(turn, messages, &rules)? {
            Outcome::Interrupted(asked) => {
                let state = serde_json::to_string(&Paused { choice, rounds: asked.state })?;
                Ok(Outcome::Interrupted(Interruption { state, ..asked }))
            }
            finished => Ok(finished),
        }
    }
}

stockade_guest::export!(Router as orchestrator);

#[cfg(test)]
mod tests;

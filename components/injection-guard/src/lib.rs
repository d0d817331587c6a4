//! Blocks prompt injections: words to the model that shall make it forget whose orders it follows.
//!
//! Two heads, since the same words mean different things: a user may ask for anything but for the model's own orders to be
//! dropped (`direct`), a tool's result has no orders to give at all (`indirect`).

use std::rc::Rc;
use stockade_guest::prelude::*;
use text_heads::{Heads, Hit, Judge, Source, shield};

static FILE: &[u8] = include_bytes!("heads.bin");
const DIRECT: usize = 0;
const INDIRECT: usize = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "minilm")]
    model: String,
    #[serde(default = "half")]
    threshold: f32,
    #[serde(default = "half")]
    tool_threshold: f32,
    #[serde(default = "usual")]
    sources: Vec<Speaker>,
    /// The host's: the text that the end user sees instead of a violation's message.
    #[serde(default, rename = "refusal")]
    _refusal: Option<String>,
}

fn minilm() -> String {
    "minilm".into()
}
fn half() -> f32 {
    0.5
}
fn usual() -> Vec<Speaker> {
    vec![Speaker::User, Speaker::Tool]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Speaker {
    User,
    Tool,
    Assistant,
}

#[derive(Deserialize)]
#[serde(from = "Config")]
struct InjectionGuard {
    config: Config,
    heads: Heads,
}

impl From<Config> for InjectionGuard {
    fn from(config: Config) -> Self {
        Self { config, heads: Heads::new(FILE) }
    }
}

/// Which head judges a source.
fn head(source: Source) -> usize {
    match source {
        Source::ToolResult => INDIRECT,
        Source::Role(_) => DIRECT,
    }
}

impl Judge for InjectionGuard {
    fn heads(&self) -> &Heads {
        &self.heads
    }
    fn model(&self) -> &str {
        &self.config.model
    }
    /// System prompts are the application's: orders are what they are for.
    fn judges(&self, source: Source) -> bool {
        let speaker = match source {
            Source::Role(Role::User) => Speaker::User,
            Source::Role(Role::Assistant) => Speaker::Assistant,
            Source::Role(Role::Tool) | Source::ToolResult => Speaker::Tool,
            Source::Role(Role::System) => return false,
        };
        self.config.sources.contains(&speaker)
    }

    fn rule(&self, hits: &[Hit]) -> Option<Violation> {
        let score = |hit: &Hit| hit.scores[head(hit.source)];
        let over = |hit: &&Hit| {
            let threshold =
                if head(hit.source) == INDIRECT { self.config.tool_threshold } else { self.config.threshold };
            score(hit) >= threshold
        };
        let worst = hits.iter().filter(over).max_by(|a, b| score(a).total_cmp(&score(b)))?;
        let category = ["prompt-injection", "indirect-prompt-injection"][head(worst.source)];
        let message = "The text tries to change the assistant's instructions.";
        let place = json!({
            "score": score(worst),
            "message": worst.message,
            "start": worst.span.start,
            "end": worst.span.end,
        });
        Some(Violation::new(category, message).with_score(score(worst)).with_metadata(&place))
    }
}

impl Shield for InjectionGuard {
    fn hold_back(&self) -> u32 {
        shield::hold_back()
    }
    fn check(&self, _: Direction, messages: Vec<Message>) -> Result<Verdict> {
        shield::check(self, &messages)
    }
    fn session(self: Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        Ok(shield::session(self))
    }
}

stockade_guest::export!(InjectionGuard as shield);

#[cfg(test)]
mod tests;

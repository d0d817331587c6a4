//! Finds unsafe content with Llama Guard, by category, in conversations and in replies.
//!
//! Invariant: whatever cannot be judged (no guard, an answer that is none, too long a turn, a picture) is an error, never
//! a pass.

mod categories;
mod conversation;
mod format;
mod guard;
mod verdict;

use categories::{Categories, Code};
use conversation::{Conversation, Speaker, Told, Turn};
use format::Format;
use guard::Score;
use std::collections::BTreeMap;
use std::rc::Rc;
use stockade_guest::prelude::*;
use stockade_guest::shield::{Window, Windows};

/// Of the bytes that a window holds, the part that the next one holds again.
const OVERLAP: usize = 8;
const MESSAGE: &str = "I can't answer that. Can I help with something else?";
/// The category of a violation for which the guard gave none that can be read.
const UNKNOWN: &str = "unsafe";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    model: String,
    format: Format,
    categories: Option<BTreeMap<Code, String>>,
    excluded: Vec<Code>,
    threshold: f64,
    score: Score,
    min_mass: f64,
    /// In bytes.
    window: usize,
    max_windows: usize,
    context_turns: usize,
    context_bytes: usize,
    images: Images,
    message: String,
    /// The host's: the text that the end user sees instead of a violation's message.
    #[serde(rename = "refusal")]
    _refusal: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: "llama-guard".into(),
            format: Format::Guard3Small,
            categories: None,
            excluded: Vec::new(),
            threshold: 0.5,
            score: Score::Renormalised,
            min_mass: 0.5,
            window: 8192,
            max_windows: 16,
            context_turns: 4,
            context_bytes: 8192,
            images: Images::Fail,
            message: MESSAGE.into(),
            _refusal: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Images {
    Fail,
    Ignore,
}

#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct LlamaGuard {
    config: Config,
    categories: Categories,
}

impl TryFrom<Config> for LlamaGuard {
    type Error = String;

    fn try_from(mut config: Config) -> Result<Self, String> {
        for (name, fits) in [
            ("threshold", (0.0..=1.0).contains(&config.threshold)),
            ("min_mass", (0.0..=1.0).contains(&config.min_mass)),
            ("window", (256..=65_536).contains(&config.window)),
            ("max_windows", (1..=256).contains(&config.max_windows)),
            ("context_turns", config.context_turns <= 100),
            ("context_bytes", config.context_bytes <= 65_536),
        ] {
            if !fits {
                return Err(format!("`{name}` is out of range"));
            }
        }
        let all = match config.categories.take() {
            Some(own) => Categories::custom(own),
            None => Categories::standard(config.format.categories()),
        };
        let categories = all.without(&config.excluded);
        if categories.is_empty() {
            return Err("`excluded` leaves no category".into());
        }
        Ok(Self { config, categories })
    }
}

impl Shield for LlamaGuard {
    fn hold_back(&self) -> u32 {
        self.config.window as u32
    }

    /// Judges what is new: turns before it were judged when they were the last.
    fn check(&self, direction: Direction, messages: Vec<Message>) -> Result<Verdict> {
        let told = Told::new(&messages);
        if told.images && self.config.images == Images::Fail {
            return Err(Error::Unavailable("a guard that sees pictures; `images` can be set to `ignore`".into()));
        }
        for turn in told.judged(direction) {
            if let Some((violation, mut metadata)) = self.judge_turn(&told.turns[turn], &told.turns[..turn])? {
                metadata["tools_as_text"] = told.tools.into();
                return Ok(Verdict::Block(violation.with_metadata(&metadata)));
            }
        }
        Ok(Verdict::Pass)
    }

    /// Judges the reply in the light of the conversation that it answers.
    fn session(self: Rc<Self>, channel: Channel, conversation: Vec<Message>) -> Result<Box<dyn Session>> {
        let window = self.window();
        let mut before = Told::new(&conversation).turns;
        // Turns alternate: words of the agent's own that the reply goes on from are no turn before it.
        before.pop_if(|turn| turn.speaker == Speaker::Agent);
        let judge = move |text: &str, start: u64| {
            let found = self.judge(Speaker::Agent, text, &before, start)?;
            Ok(found.map(|(violation, mut metadata)| {
                metadata["channel"] = channel_name(channel).into();
                violation.with_metadata(&metadata)
            }))
        };
        Ok(Box::new(Windows::new(window, judge)))
    }
}

impl LlamaGuard {
    fn window(&self) -> Window {
        Window::new(self.config.window, self.config.window / OVERLAP)
    }

    /// A whole turn, window by window.
    fn judge_turn(&self, turn: &Turn, before: &[Turn]) -> Result<Option<(Violation, Value)>> {
        let windows = self.window().ranges(&turn.text);
        if windows.len() > self.config.max_windows {
            let reason =
                format!("a turn of more than {} windows of {} bytes", self.config.max_windows, self.config.window);
            return Err(Error::TooLarge(reason));
        }
        for window in windows {
            let found = self.judge(turn.speaker, &turn.text[window.clone()], before, window.start as u64)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// A stretch of a turn, `start` bytes into it.
    fn judge(&self, speaker: Speaker, text: &str, before: &[Turn], start: u64) -> Result<Option<(Violation, Value)>> {
        if text.trim().is_empty() {
            return Ok(None);
        }
        let Config { context_turns, context_bytes, score, threshold, .. } = self.config;
        let conversation = Conversation::about(speaker, text, before, context_turns, context_bytes);
        let Some(guard::Verdict { odds, codes }) = guard::judge(&self.config, &self.categories, &conversation)? else {
            return Ok(None);
        };
        let names: Vec<String> = codes.iter().map(|&code| self.categories.name(code)).collect();
        let categories: Vec<Value> =
            codes.iter().zip(&names).map(|(code, name)| json!({"code": code.to_string(), "name": name})).collect();
        let metadata = json!({
            "model": self.config.model,
            "format": self.config.format,
            "categories": categories,
            "p_unsafe": odds.renormalised(),
            "p_unsafe_raw": odds.unsafe_,
            "threshold": threshold,
            "role": match speaker { Speaker::User => "user", Speaker::Agent => "agent" },
            "turns": conversation.turns.len(),
            "start": start,
            "end": start + text.len() as u64,
        });
        let category = codes.first().map_or_else(|| UNKNOWN.into(), Code::to_string);
        let message = match names[..] {
            [] => self.config.message.clone(),
            _ => format!("{} ({})", self.config.message, names.join(", ")),
        };
        Ok(Some((Violation::new(category, message).with_score(odds.score(score) as f32), metadata)))
    }
}

fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Text => "text",
        Channel::Reasoning => "reasoning",
        Channel::ToolCall => "tool-call",
        Channel::Step => "step",
    }
}

stockade_guest::export!(LlamaGuard as shield);

#[cfg(test)]
mod tests;

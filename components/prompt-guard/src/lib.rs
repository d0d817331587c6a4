//! Finds jailbreaks and prompt injections with a Prompt Guard classifier, in conversations and in replies.
//!
//! Invariant: whatever cannot be judged (no model, unknown labels, too long a text) is an error, never a pass.

mod harden;
mod labels;
mod scan;
mod windows;

use labels::{Labels, Origin};
use scan::{Finding, Place, Scan};
use std::rc::Rc;
use stockade_guest::prelude::*;
use stockade_guest::shield::{Window, Windows};

/// Of the bytes that a reply's windows hold, the part that the next one holds again.
const OVERLAP: usize = 4;
const MESSAGE: &str = "This text looks like an attempt to override the assistant's instructions.";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    model: String,
    threshold: f32,
    temperature: f32,
    /// In tokens, as `stride`.
    window: usize,
    stride: usize,
    max_windows: usize,
    harden: bool,
    judge: Vec<Source>,
    third_party: Vec<Source>,
    labels: Option<Labels>,
    /// In bytes.
    hold_back: usize,
    message: String,
    /// The host's: the text that the end user sees instead of a violation's message.
    #[serde(rename = "refusal")]
    _refusal: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: "prompt-guard".into(),
            threshold: 0.9,
            temperature: 1.0,
            window: 510,
            stride: 256,
            max_windows: 256,
            harden: true,
            judge: vec![Source::User, Source::Tool],
            third_party: vec![Source::Tool],
            labels: None,
            hold_back: 8192,
            message: MESSAGE.into(),
            _refusal: None,
        }
    }
}

/// Whose text it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Source {
    System,
    User,
    Assistant,
    Tool,
    /// The assistant's, on its way out.
    Reply,
}

#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct PromptGuard {
    config: Config,
}

impl TryFrom<Config> for PromptGuard {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        for (name, fits) in [
            ("threshold", (0.0..=1.0).contains(&config.threshold)),
            ("temperature", config.temperature > 0.0 && config.temperature <= 100.0),
            ("window", (16..=8192).contains(&config.window)),
            ("stride", (1..=config.window).contains(&config.stride)),
            ("max_windows", (1..=4096).contains(&config.max_windows)),
            ("hold_back", (256..=65_536).contains(&config.hold_back)),
        ] {
            if !fits {
                return Err(format!("`{name}` is out of range"));
            }
        }
        Ok(Self { config })
    }
}

impl Shield for PromptGuard {
    fn hold_back(&self) -> u32 {
        self.config.hold_back as u32
    }

    fn check(&self, direction: Direction, messages: Vec<Message>) -> Result<Verdict> {
        let mut scan = Scan::new(&self.config);
        for (index, message) in messages.iter().enumerate() {
            for (part_index, part) in message.parts.iter().enumerate() {
                let source = source(direction, message, part);
                if source != Source::Reply && !self.config.judge.contains(&source) {
                    continue;
                }
                let place = Place::Message { message: index, part: part_index };
                for text in texts(part) {
                    scan.add(text, &place, self.origin(source))?;
                }
            }
        }
        Ok(match self.violation(scan.worst()?) {
            Some(violation) => Verdict::Block(violation),
            None => Verdict::Pass,
        })
    }

    fn session(self: Rc<Self>, channel: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        let size = self.config.hold_back;
        let judge = move |text: &str, start: u64| {
            let mut scan = Scan::new(&self.config);
            scan.add(text, &Place::Reply { channel, start }, self.origin(Source::Reply))?;
            Ok(self.violation(scan.worst()?))
        };
        Ok(Box::new(Windows::new(Window::new(size, size / OVERLAP), judge)))
    }
}

impl PromptGuard {
    fn origin(&self, source: Source) -> Origin {
        if self.config.third_party.contains(&source) { Origin::ThirdParty } else { Origin::User }
    }

    fn violation(&self, worst: Option<Finding>) -> Option<Violation> {
        let worst = worst.filter(|worst| worst.score >= self.config.threshold)?;
        let metadata = worst.metadata(&self.config);
        Some(
            Violation::new(worst.origin.category(), &*self.config.message)
                .with_score(worst.score)
                .with_metadata(&metadata),
        )
    }
}

fn source(direction: Direction, message: &Message, part: &Part) -> Source {
    match (part, message.role, direction) {
        (Part::ToolResult(_), ..) | (_, Role::Tool, _) => Source::Tool,
        (_, Role::System, _) => Source::System,
        (_, Role::User, _) => Source::User,
        (_, Role::Assistant, Direction::Input) => Source::Assistant,
        (_, Role::Assistant, Direction::Output) => Source::Reply,
    }
}

fn texts(part: &Part) -> impl Iterator<Item = &str> {
    let texts = match part {
        Part::Text(text) | Part::Reasoning(text) => [Some(text), None],
        Part::ToolCall(call) => [Some(&call.name), Some(&call.arguments)],
        Part::ToolResult(result) => [Some(&result.content), None],
        Part::Image(_) => [None, None],
    };
    texts.into_iter().flatten().map(String::as_str)
}

stockade_guest::export!(PromptGuard as shield);

#[cfg(test)]
mod tests;

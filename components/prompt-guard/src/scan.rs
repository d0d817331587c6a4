//! One judgement: all windows of all texts, classified together; the worst one counts.

use crate::harden::hardened;
use crate::labels::{Labels, Origin};
use crate::windows::Cut;
use crate::{Channel, Config};
use std::ops::Range;
use stockade_guest::inference::LabelScore;
use stockade_guest::prelude::*;

/// Texts of one call to the classifier.
const BATCH: usize = 32;

/// Where a text stands.
#[derive(Debug, Clone)]
pub enum Place {
    Message {
        message: usize,
        part: usize,
    },
    /// `start`: bytes of the channel before the text.
    Reply {
        channel: Channel,
        start: u64,
    },
}

/// A window to judge.
struct Candidate {
    text: String,
    place: Place,
    origin: Origin,
    range: Range<usize>,
    hardened: bool,
}

/// The worst window.
pub struct Finding {
    pub score: f32,
    pub origin: Origin,
    place: Place,
    range: Range<usize>,
    hardened: bool,
    labels: Vec<LabelScore>,
    windows: usize,
}

pub struct Scan<'a> {
    config: &'a Config,
    candidates: Vec<Candidate>,
    /// Windows so far, each counted once.
    windows: usize,
}

impl<'a> Scan<'a> {
    pub fn new(config: &'a Config) -> Self {
        Self { config, candidates: Vec::new(), windows: 0 }
    }

    /// Cuts a text into windows. A text of white space has none.
    pub fn add(&mut self, text: &str, place: &Place, origin: Origin) -> Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let Config { model, window, stride, max_windows, .. } = self.config;
        let left = max_windows - self.windows;
        if left == 0 {
            return Err(Error::TooLarge(format!("more than {max_windows} windows")));
        }
        let count = |text: &str| Ok(inference::tokenize(model, text)?.len());
        let ranges = Cut { size: *window, stride: *stride, most: left }.windows(text, count)?;
        self.windows += ranges.len();
        for range in ranges {
            let candidate = |text: String, hardened| Candidate {
                text,
                place: place.clone(),
                origin,
                range: range.clone(),
                hardened,
            };
            let window = &text[range.clone()];
            if self.config.harden
                && let Some(dense) = hardened(model, window)?
                && count(&dense)? <= self.config.window
            {
                self.candidates.push(candidate(dense, true));
            }
            self.candidates.push(candidate(window.into(), false));
        }
        Ok(())
    }

    /// Classifies all windows; `None` where there are none.
    pub fn worst(self) -> Result<Option<Finding>> {
        let mut worst: Option<Finding> = None;
        for batch in self.candidates.chunks(BATCH) {
            let texts: Vec<String> = batch.iter().map(|candidate| candidate.text.clone()).collect();
            let rows = inference::classify(&self.config.model, &texts)?;
            if rows.len() != batch.len() {
                return Err(Error::Other("the classifier left texts out".into()));
            }
            for (candidate, scores) in batch.iter().zip(rows) {
                let score = match &self.config.labels {
                    Some(labels) => labels.score(&scores, candidate.origin, self.config.temperature)?,
                    None => Labels::of(&scores)?.score(&scores, candidate.origin, self.config.temperature)?,
                };
                if worst.as_ref().is_none_or(|worst| score > worst.score) {
                    worst = Some(Finding {
                        score,
                        origin: candidate.origin,
                        place: candidate.place.clone(),
                        range: candidate.range.clone(),
                        hardened: candidate.hardened,
                        labels: scores,
                        windows: self.windows,
                    });
                }
            }
        }
        Ok(worst)
    }
}

impl Finding {
    /// Where it is and what the model said; nothing of the text itself.
    pub fn metadata(&self, config: &Config) -> Value {
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|score| (score.label.clone(), json!(score.score))).collect();
        let mut metadata = json!({
            "model": config.model,
            "origin": self.origin,
            "threshold": config.threshold,
            "labels": labels,
            "windows": self.windows,
            "hardened": self.hardened,
        });
        match self.place {
            Place::Message { message, part } => {
                metadata["message"] = message.into();
                metadata["part"] = part.into();
                metadata["start"] = self.range.start.into();
                metadata["end"] = self.range.end.into();
            }
            Place::Reply { channel, start } => {
                metadata["channel"] = channel_name(channel).into();
                metadata["start"] = (start + self.range.start as u64).into();
                metadata["end"] = (start + self.range.end as u64).into();
            }
        }
        metadata
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

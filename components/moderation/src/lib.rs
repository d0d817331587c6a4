//! Judges text by OpenAI's moderation categories.
//!
//! A block's metadata is a result of `/v1/moderations`: `{flagged, categories, category_scores}`, each category with the
//! highest score that any window of the text has.

use std::collections::BTreeMap;
use std::rc::Rc;
use stockade_guest::prelude::*;
use text_heads::{Heads, Hit, Judge, Source, shield};

static FILE: &[u8] = include_bytes!("heads.bin");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "minilm")]
    model: String,
    #[serde(default = "half")]
    threshold: f32,
    #[serde(default)]
    thresholds: BTreeMap<String, f32>,
    /// Tells the scores of every text, as a block whose metadata says whether it is flagged: for `/v1/moderations`.
    #[serde(default)]
    report: bool,
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

#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Moderation {
    model: String,
    heads: Heads,
    /// In the heads' order.
    thresholds: Vec<f32>,
    report: bool,
}

impl TryFrom<Config> for Moderation {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let heads = Heads::new(FILE);
        if let Some(unknown) = config.thresholds.keys().find(|name| heads.labels().all(|label| label != *name)) {
            return Err(format!("thresholds: there is no category `{unknown}`"));
        }
        let thresholds =
            heads.labels().map(|label| *config.thresholds.get(label).unwrap_or(&config.threshold)).collect();
        Ok(Self { model: config.model, heads, thresholds, report: config.report })
    }
}

impl Judge for Moderation {
    fn heads(&self) -> &Heads {
        &self.heads
    }
    fn model(&self) -> &str {
        &self.model
    }
    /// System prompts are the application's.
    fn judges(&self, source: Source) -> bool {
        source != Source::Role(Role::System)
    }

    fn rule(&self, hits: &[Hit]) -> Option<Violation> {
        let mut scores = vec![0f32; self.thresholds.len()];
        for hit in hits {
            scores.iter_mut().zip(&hit.scores).for_each(|(highest, &score)| *highest = highest.max(score));
        }
        // A threshold of 1 is out of every score's reach but for rounding: it leaves the category out.
        let over: Vec<bool> = scores.iter().zip(&self.thresholds).map(|(s, t)| s >= t && *t < 1.0).collect();
        let labelled = || self.heads.labels().zip(&scores).zip(&over);
        let flagged = over.contains(&true);
        let standing = labelled().filter(|(_, over)| **over == flagged);
        let ((worst, &score), _) = standing.max_by(|((_, a), _), ((_, b), _)| a.total_cmp(b))?;
        if !flagged && !self.report {
            return None;
        }
        let categories: BTreeMap<&str, bool> = labelled().map(|((label, _), &over)| (label, over)).collect();
        let category_scores: BTreeMap<&str, f32> = labelled().map(|((label, &score), _)| (label, score)).collect();
        let result = json!({ "flagged": flagged, "categories": categories, "category_scores": category_scores });
        let message = if flagged { format!("The text was flagged for {worst}.") } else { "A report.".into() };
        Some(Violation::new(worst, message).with_score(score).with_metadata(&result))
    }
}

impl Shield for Moderation {
    fn hold_back(&self) -> u32 {
        shield::hold_back()
    }
    fn check(&self, _: Direction, messages: Vec<Message>) -> Result<Verdict> {
        shield::check(self, &messages)
    }
    fn session(self: Rc<Self>, _: Channel, _: Vec<Message>) -> Result<Box<dyn Session>> {
        if self.report {
            return Err(Error::Invalid(
                "report: a reply is judged piece by piece, only whole texts are reported".into(),
            ));
        }
        Ok(shield::session(self))
    }
}

stockade_guest::export!(Moderation as shield);

#[cfg(test)]
mod tests;

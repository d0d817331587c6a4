//! Asks the guard: how likely it is to say `unsafe`, and which categories it names if it does.

use crate::Config;
use crate::categories::{Categories, Code};
use crate::conversation::Conversation;
use crate::verdict::{Answer, Unreadable};
use stockade_guest::inference::{Complete, Prompt, PromptPart, log_likelihood};
use stockade_guest::prelude::*;

const SAFE: &str = "safe";
const UNSAFE: &str = "unsafe";
/// Tokens of an answer: fourteen categories take fewer.
const ANSWER_TOKENS: u32 = 48;

/// Which probability decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Score {
    Raw,
    Renormalised,
}

/// The guard's probabilities of its two verdicts.
#[derive(Debug, Clone, Copy)]
pub struct Odds {
    pub safe: f64,
    pub unsafe_: f64,
}

impl Odds {
    pub fn renormalised(self) -> f64 {
        self.unsafe_ / (self.safe + self.unsafe_)
    }

    pub fn score(self, score: Score) -> f64 {
        match score {
            Score::Raw => self.unsafe_,
            Score::Renormalised => self.renormalised(),
        }
    }
}

/// A violation, in the guard's words.
pub struct Verdict {
    pub odds: Odds,
    /// Empty where the guard named none, or none that can be read.
    pub codes: Vec<Code>,
}

/// `None`: not a violation.
pub fn judge(config: &Config, categories: &Categories, conversation: &Conversation) -> Result<Option<Verdict>> {
    let mut parts = config.format.prompt(conversation, categories);
    let lead = config.format.lead();
    if !lead.is_empty() {
        parts.push(PromptPart::Text(lead.into()));
    }
    let prompt = Prompt::Parts(parts.clone());
    let odds = Odds { safe: probability(config, &prompt, SAFE)?, unsafe_: probability(config, &prompt, UNSAFE)? };
    let mass = odds.safe + odds.unsafe_;
    // Not a number is not enough either.
    if !(mass > 0.0 && mass >= config.min_mass) {
        return Err(Error::Other(format!(
            "`{}` answers neither safe nor unsafe (both together: {mass:.3})",
            config.model
        )));
    }
    if odds.score(config.score) < config.threshold {
        return Ok(None);
    }
    // Its verdict is given to it: below a half it would have said `safe` of itself and named nothing.
    parts.push(PromptPart::Text(UNSAFE.into()));
    let answer = Complete::new(&*config.model, parts).max_tokens(ANSWER_TOKENS).temperature(0.0).ask()?;
    let codes = match Answer::read(&format!("{UNSAFE}{}", answer.text), categories) {
        Ok(Answer::Unsafe(codes)) if !codes.is_empty() => codes,
        Ok(_) | Err(Unreadable) => return Ok(Some(Verdict { odds, codes: Vec::new() })),
    };
    let codes: Vec<Code> = codes.into_iter().filter(|code| !config.excluded.contains(code)).collect();
    Ok((!codes.is_empty()).then_some(Verdict { odds, codes }))
}

/// Of the whole word: the product over its tokens, of which a guard's vocabulary has one.
fn probability(config: &Config, prompt: &Prompt, word: &str) -> Result<f64> {
    let scores = log_likelihood(&config.model, prompt.clone(), word)?;
    if scores.is_empty() {
        return Err(Error::Other(format!("`{}` has no tokens for `{word}`", config.model)));
    }
    Ok(scores.iter().map(|score| f64::from(score.logprob)).sum::<f64>().exp())
}

//! What a classifier's labels mean: which of them are violations in whose text.

use stockade_guest::inference::LabelScore;
use stockade_guest::prelude::*;

/// Where a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Somebody who talks to the model: instructions are what is expected, only overriding the given ones is not.
    User,
    /// Text that was fetched or returned: no instruction belongs there.
    ThirdParty,
}

impl Origin {
    /// A violation's category.
    pub fn category(self) -> &'static str {
        match self {
            Self::User => "jailbreak",
            Self::ThirdParty => "prompt-injection",
        }
    }
}

/// The harmful labels of a text by its origin. Their probabilities add up to the score.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    pub user: Vec<String>,
    pub third_party: Vec<String>,
}

impl Labels {
    /// By the names or the number of a classifier's labels: Prompt Guard 1 (`BENIGN`, `INJECTION`, `JAILBREAK`) or 2
    /// (`BENIGN`, `MALICIOUS`), or their numbers where the configuration does not name them.
    pub fn of(scores: &[LabelScore]) -> Result<Self> {
        let mut names: Vec<String> = scores.iter().map(|score| score.label.to_uppercase()).collect();
        names.sort_unstable();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let labels = |user: &[&str], third_party: &[&str]| {
            let owned = |labels: &[&str]| labels.iter().map(|&label| label.into()).collect();
            Ok(Self { user: owned(user), third_party: owned(third_party) })
        };
        match names[..] {
            ["BENIGN", "INJECTION", "JAILBREAK"] => labels(&["JAILBREAK"], &["INJECTION", "JAILBREAK"]),
            ["LABEL_0", "LABEL_1", "LABEL_2"] => labels(&["LABEL_2"], &["LABEL_1", "LABEL_2"]),
            ["BENIGN", "MALICIOUS"] => labels(&["MALICIOUS"], &["MALICIOUS"]),
            ["LABEL_0", "LABEL_1"] => labels(&["LABEL_1"], &["LABEL_1"]),
            _ => Err(Error::Invalid(format!("the model has the labels {names:?}: say in `labels` which are harmful"))),
        }
    }

    /// The harmful labels' share of the probability, 0.0 to 1.0, at `temperature`.
    pub fn score(&self, scores: &[LabelScore], origin: Origin, temperature: f32) -> Result<f32> {
        let harmful = match origin {
            Origin::User => &self.user,
            Origin::ThirdParty => &self.third_party,
        };
        if let Some(unknown) = harmful.iter().find(|label| !scores.iter().any(|s| s.label.eq_ignore_ascii_case(label)))
        {
            return Err(Error::Invalid(format!("the model has no label `{unknown}`")));
        }
        // softmax(x / t) is softmax(x) to the power of 1/t, normalised again.
        let mass = |score: &LabelScore| f64::from(score.score).powf(1.0 / f64::from(temperature));
        let is_harmful = |score: &&LabelScore| harmful.iter().any(|label| score.label.eq_ignore_ascii_case(label));
        let total: f64 = scores.iter().map(mass).sum();
        let share = scores.iter().filter(is_harmful).map(mass).sum::<f64>() / total;
        if !share.is_finite() {
            return Err(Error::Other("the model's probabilities are no numbers".into()));
        }
        Ok(share as f32)
    }
}

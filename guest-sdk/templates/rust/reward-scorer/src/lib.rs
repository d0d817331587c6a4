//! Rewards short completions: 1 for an empty one, down to 0 at the configured length.

use stockade_guest::prelude::*;
use stockade_guest::reward_scorer::Rollout;

#[derive(Deserialize)]
struct Plugin {
    /// In characters.
    #[serde(default = "thousand")]
    longest: u32,
}

fn thousand() -> u32 {
    1000
}

impl RewardScorer for Plugin {
    fn score(&self, rollouts: Vec<Rollout>) -> Result<Vec<Option<f64>>> {
        let score = |r: &Rollout| (1.0 - r.completion.chars().count() as f64 / f64::from(self.longest.max(1))).max(0.0);
        Ok(rollouts.iter().map(|r| Some(score(r))).collect())
    }
}

stockade_guest::export!(Plugin as reward_scorer);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_is_better() {
        let plugin = testing::plugin::<Plugin>(json!({"longest": 4})).unwrap();
        let rollout = |text: &str| Rollout { messages: Vec::new(), completion: text.into(), reference: None };
        let scores = plugin.score(vec![rollout(""), rollout("ab"), rollout("abcdefgh")]).unwrap();
        assert_eq!(scores, [Some(1.0), Some(0.5), Some(0.0)]);
    }
}

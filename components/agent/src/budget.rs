//! Bounds on a turn.
//!
//! Invariant: the bounds end the work, never the reply: a quarter of the tokens and one model call are kept for the
//! answer. What has to end at once is ended by the limits of the host.

use serde::{Deserialize, Serialize};
use stockade_guest::prelude::{Sampling, Usage};
use stockade_guest::system;

/// Bounds on one turn, as the configuration gives them.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most model calls, at least 1.
    pub model_calls: u32,
    /// Wall time after which the next model call is the last. Below the host's own deadline of 120 s.
    pub seconds: u32,
    /// Most completion tokens of all model calls together; without it the application's and the context's bounds.
    pub tokens: Option<u32>,
    /// Most calls of the tenant's tools. Once they are made, the model is offered the application's alone.
    pub tool_calls: Option<u32>,
    /// Most tool calls of one model call, whoever's; the others are left out.
    pub calls_at_once: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { model_calls: 8, seconds: 90, tokens: None, tool_calls: None, calls_at_once: None }
    }
}

/// What a turn has used, interruptions not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    pub model_calls: u32,
    pub milliseconds: u64,
    pub tokens: u32,
    /// Calls of the tenant's tools.
    #[serde(default)]
    pub tool_calls: u32,
}

#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    before: Spent,
    /// When this run began, in milliseconds since 1970.
    began: u64,
}

impl Budget {
    /// `before` is what earlier runs of the same turn have used.
    pub fn new(limits: Limits, before: Spent) -> Self {
        Self { limits, before, began: system::now() }
    }

    /// The next model call has to be the one that answers.
    pub fn is_last(&self) -> bool {
        self.is_last_at(system::now())
    }

    fn is_last_at(&self, now: u64) -> bool {
        let spent = self.spent_at(now);
        let few_tokens = self.limits.tokens.is_some_and(|most| most.saturating_sub(spent.tokens) <= most / 4);
        few_tokens
            || spent.model_calls + 1 >= self.limits.model_calls
            || spent.milliseconds >= u64::from(self.limits.seconds) * 1000
    }

    /// The same sampling within the tokens that are left. Untouched without a bound, since the host then also keeps what
    /// the plugin API has no words for.
    pub fn bound(&self, sampling: &Sampling) -> Sampling {
        let Some(most) = self.limits.tokens else { return sampling.clone() };
        let left = most.saturating_sub(self.before.tokens).max(1);
        Sampling { max_tokens: Some(sampling.max_tokens.map_or(left, |asked| asked.min(left))), ..sampling.clone() }
    }

    /// How many calls of the tenant's tools may still be made.
    pub fn calls_left(&self) -> usize {
        let left = |most: u32| most.saturating_sub(self.before.tool_calls);
        self.limits.tool_calls.map_or(usize::MAX, |most| left(most) as usize)
    }

    /// How many of a reply's tool calls count.
    pub fn calls_at_once(&self) -> usize {
        self.limits.calls_at_once.map_or(usize::MAX, |most| most as usize)
    }

    pub fn charge_calls(&mut self, calls: usize) {
        let calls = u32::try_from(calls).unwrap_or(u32::MAX);
        self.before.tool_calls = self.before.tool_calls.saturating_add(calls);
    }

    pub fn charge(&mut self, usage: &Usage) {
        self.before.model_calls += 1;
        self.before.tokens = self.before.tokens.saturating_add(usage.completion_tokens);
    }

    pub fn spent(&self) -> Spent {
        self.spent_at(system::now())
    }

    fn spent_at(&self, now: u64) -> Spent {
        let running = now.saturating_sub(self.began);
        Spent { milliseconds: self.before.milliseconds.saturating_add(running), ..self.before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(completion_tokens: u32) -> Usage {
        Usage { prompt_tokens: 9, cached_tokens: 0, completion_tokens }
    }

    #[test]
    fn the_last_call_comes_by_number_time_or_tokens_whichever_is_first() {
        let limits = Limits { model_calls: 3, seconds: 10, tokens: Some(100), ..Limits::default() };
        let mut budget = Budget::new(limits, Spent::default());
        let began = budget.began;
        assert!(!budget.is_last_at(began + 9_999));
        assert!(budget.is_last_at(began + 10_000));
        budget.charge(&usage(74));
        assert!(!budget.is_last_at(began));
        budget.charge(&usage(1));
        assert!(budget.is_last_at(began), "both the calls and the tokens are used up to the reserve");
        let resumed = Budget::new(limits, Spent { milliseconds: 10_000, ..Spent::default() });
        assert!(resumed.is_last_at(resumed.began));
        let one = Budget::new(Limits { model_calls: 1, ..limits }, Spent::default());
        assert!(one.is_last_at(one.began));
    }

    #[test]
    fn sampling_is_bounded_by_what_is_left_and_else_untouched() {
        let asked = Sampling { max_tokens: Some(50), ..Sampling::default() };
        let free = Budget::new(Limits::default(), Spent::default());
        assert_eq!(free.bound(&asked), asked);
        assert_eq!(free.bound(&Sampling::default()), Sampling::default());
        let mut budget = Budget::new(Limits { tokens: Some(60), ..Limits::default() }, Spent::default());
        assert_eq!(budget.bound(&asked).max_tokens, Some(50));
        budget.charge(&usage(40));
        assert_eq!(budget.bound(&asked).max_tokens, Some(20));
        budget.charge(&usage(40));
        assert_eq!(budget.bound(&asked).max_tokens, Some(1));
    }
}

//! From a row of logits to the next token.
//!
//! Order: mask, logit bias, penalties, temperature, min-p, top-k, top-p, draw (as vLLM does). Invariant: a draw depends on
//! the row, the request and (seed, position) alone, so a seeded run is the same whatever shares its batch.

use crate::softmax::{exponentials, largest, sum, sum_of_exponentials};
use std::collections::HashMap;
use stockade_core::infer::Sampling;

/// Temperatures below take the likeliest token: dividing by them overflows.
const GREEDY_BELOW: f32 = 1e-5;

/// Why a row cannot be sampled. Ends that request only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    #[error("the logits hold a value that is not a number")]
    NotANumber,
    #[error("no token is allowed")]
    NothingAllowed,
}

/// A set of token ids, as the grammar hands it out.
pub trait Allowed {
    /// Sets the logits of all other tokens to negative infinity.
    fn restrict(&self, row: &mut [f32]);
}

/// One request's sampler: its parameters and the counts that penalties need.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    seed: u64,
    counts: HashMap<u32, Count>,
    penalised: bool,
    /// Scratch: adjusted logits of the present row.
    row: Vec<f32>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    prompt: bool,
    completion: u32,
}

impl Sampler {
    /// `seed` is used where the request fixes none.
    pub fn new(sampling: Sampling, seed: u64, prompt: &[u32]) -> Self {
        let penalised =
            sampling.repetition_penalty != 1.0 || sampling.frequency_penalty != 0.0 || sampling.presence_penalty != 0.0;
        let mut counts = HashMap::new();
        if sampling.repetition_penalty != 1.0 {
            for &token in prompt {
                counts.insert(token, Count { prompt: true, completion: 0 });
            }
        }
        let seed = sampling.seed.unwrap_or(seed);
        Self { sampling, seed, counts, penalised, row: Vec::new() }
    }

    /// Draws the token for `position` (counted from the prompt's first token).
    pub fn sample(
        &mut self,
        logits: &[f32],
        allowed: Option<&dyn Allowed>,
        position: usize,
    ) -> Result<u32, SampleError> {
        largest(logits).ok_or(SampleError::NotANumber)?;
        self.row.clear();
        self.row.extend_from_slice(logits);
        if let Some(allowed) = allowed {
            allowed.restrict(&mut self.row);
        }
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = self.row.get_mut(token as usize) {
                *logit += bias;
            }
        }
        self.penalise();
        let max = largest(&self.row).ok_or(SampleError::NotANumber)?;
        if max == f32::NEG_INFINITY {
            return Err(SampleError::NothingAllowed);
        }
        if self.sampling.temperature < GREEDY_BELOW || self.sampling.top_k == 1 {
            return argmax(&self.row).ok_or(SampleError::NothingAllowed);
        }
        let u = uniform(self.seed, position as u64);
        self.draw(max, u).ok_or(SampleError::NothingAllowed)
    }

    /// Counts a token that became part of the completion.
    pub fn accept(&mut self, token: u32) {
        if self.penalised {
            self.counts.entry(token).or_default().completion += 1;
        }
    }

    fn penalise(&mut self) {
        if !self.penalised {
            return;
        }
        let s = &self.sampling;
        for (&token, count) in &self.counts {
            let Some(logit) = self.row.get_mut(token as usize) else {
                continue;
            };
            if count.prompt || count.completion > 0 {
                *logit = if *logit > 0.0 { *logit / s.repetition_penalty } else { *logit * s.repetition_penalty };
            }
            if count.completion > 0 {
                *logit -= s.frequency_penalty * count.completion as f32 + s.presence_penalty;
            }
        }
    }

    /// Draws by `u` in 0..1 from the filtered distribution; `max` is the largest logit. Turns the row into masses
    /// relative to the likeliest token, which has 1.
    fn draw(&mut self, max: f32, u: f64) -> Option<u32> {
        let s = &self.sampling;
        exponentials(&mut self.row, max, 1.0 / s.temperature);
        if s.min_p > 0.0 {
            for mass in &mut self.row {
                *mass = if *mass < s.min_p { 0.0 } else { *mass };
            }
        }
        if s.top_k == 0 && s.top_p >= 1.0 {
            let target = u * sum(&self.row);
            return pick((0u32..).zip(self.row.iter().copied()), target);
        }
        let mut candidates = if s.top_k > 0 {
            likeliest(&self.row, s.top_k as usize)
        } else {
            // Tokens that are together lighter than what top-p leaves out cannot be in the nucleus.
            let total = sum(&self.row);
            let least = ((1.0 - f64::from(s.top_p)) * total / self.row.len() as f64 * 0.5) as f32;
            (0u32..).zip(self.row.iter().copied()).filter(|c| c.1 > least).collect()
        };
        candidates.retain(|c| c.1 > 0.0);
        if s.top_p < 1.0 {
            let total = if s.top_k > 0 { candidates.iter().map(|c| f64::from(c.1)).sum() } else { sum(&self.row) };
            keep_nucleus(&mut candidates, f64::from(s.top_p) * total);
        }
        let total: f64 = candidates.iter().map(|c| f64::from(c.1)).sum();
        pick(candidates.into_iter(), u * total)
    }
}

/// The first token whose cumulated weight exceeds `target`; rounding may leave the last one that has weight.
fn pick(weights: impl Iterator<Item = (u32, f32)>, target: f64) -> Option<u32> {
    let mut sum = 0.0;
    let mut last = None;
    for (token, weight) in weights.filter(|w| w.1 > 0.0) {
        sum += f64::from(weight);
        last = Some(token);
        if sum > target {
            break;
        }
    }
    last
}

fn likelier(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The `k` likeliest in falling order; of equals the smaller id comes first.
fn likeliest(row: &[f32], k: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::new();
    let cut = |best: &mut Vec<(u32, f32)>| {
        if k < best.len() {
            best.select_nth_unstable_by(k, likelier);
            best.truncate(k);
        }
    };
    // Ids only grow, so an equal of the k-th comes too late.
    let mut floor = f32::NEG_INFINITY;
    for (token, &x) in (0u32..).zip(row) {
        if x > floor {
            best.push((token, x));
            if best.len() >= 2 * k + 256 {
                cut(&mut best);
                floor = best.iter().map(|b| b.1).fold(f32::INFINITY, f32::min);
            }
        }
    }
    cut(&mut best);
    best.sort_unstable_by(likelier);
    best
}

/// Cuts to the shortest run of likeliest tokens that reaches `goal`, at least one.
fn keep_nucleus(candidates: &mut Vec<(u32, f32)>, goal: f64) {
    // Most nuclei are short: order a few hundred first and only what is needed after that.
    let mut ordered = 0;
    let mut window = 256;
    let mut sum = 0.0;
    while ordered < candidates.len() {
        let rest = &mut candidates[ordered..];
        let n = window.min(rest.len());
        if n < rest.len() {
            rest.select_nth_unstable_by(n, likelier);
        }
        rest[..n].sort_unstable_by(likelier);
        for at in ordered..ordered + n {
            sum += f64::from(candidates[at].1);
            if sum >= goal {
                candidates.truncate(at + 1);
                return;
            }
        }
        ordered += n;
        window *= 4;
    }
}

/// The likeliest token, of equals the smallest id. `None` when nothing is above negative infinity.
pub fn argmax(row: &[f32]) -> Option<u32> {
    let mut best = f32::NEG_INFINITY;
    let mut at = None;
    for (i, &x) in row.iter().enumerate() {
        if x > best {
            best = x;
            at = Some(i as u32);
        }
    }
    at
}

/// `(token, log-probability)` of `chosen` and of the `top` likeliest, from raw logits. `None` for broken rows.
pub fn log_probabilities(logits: &[f32], chosen: u32, top: usize) -> Option<(f32, Vec<(u32, f32)>)> {
    let max = largest(logits).filter(|max| max.is_finite())?;
    let normaliser = f64::from(max) + sum_of_exponentials(logits, max).ln();
    let of = |logit: f32| (f64::from(logit) - normaliser) as f32;
    let mut best = if top > 0 { likeliest(logits, top) } else { Vec::new() };
    best.iter_mut().for_each(|b| b.1 = of(b.1));
    Some((of(*logits.get(chosen as usize)?), best))
}

/// A number in 0..1 that is a function of its two arguments: a counter-based generator, two rounds of splitmix64's
/// finaliser over each word (Steele et al. 2014, "Fast splittable pseudorandom number generators").
fn uniform(seed: u64, position: u64) -> f64 {
    fn mix(mut z: u64) -> u64 {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    let bits = mix(mix(mix(seed) ^ position).wrapping_add(seed));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampler(change: impl FnOnce(&mut Sampling)) -> Sampler {
        let mut sampling = Sampling { seed: Some(1), ..Sampling::default() };
        change(&mut sampling);
        Sampler::new(sampling, 0, &[])
    }

    /// Which tokens ever come out over many positions.
    fn support(mut s: Sampler, logits: &[f32]) -> Vec<u32> {
        let drawn: std::collections::BTreeSet<u32> = (0..4000).map(|p| s.sample(logits, None, p).unwrap()).collect();
        drawn.into_iter().collect()
    }

    #[test]
    fn filters_keep_exactly_the_tokens_they_promise() {
        // Probabilities 0.5, 0.25, 0.125, 0.125.
        let logits = [0.5f32.ln(), 0.25f32.ln(), 0.125f32.ln(), 0.125f32.ln()];
        for (name, s, kept) in [
            ("everything", sampler(|_| ()), vec![0, 1, 2, 3]),
            ("top-k 2", sampler(|s| s.top_k = 2), vec![0, 1]),
            ("top-k tie goes to the smaller id", sampler(|s| s.top_k = 3), vec![0, 1, 2]),
            ("top-p first is enough", sampler(|s| s.top_p = 0.4), vec![0]),
            ("top-p needs two", sampler(|s| s.top_p = 0.7), vec![0, 1]),
            ("top-p tie goes to the smaller id", sampler(|s| s.top_p = 0.87), vec![0, 1, 2]),
            ("top-p 0 keeps one", sampler(|s| s.top_p = 0.0), vec![0]),
            ("min-p half of the best", sampler(|s| s.min_p = 0.45), vec![0, 1]),
            (
                "top-p counts mass after top-k",
                sampler(|s| {
                    s.top_k = 2;
                    s.top_p = 0.6
                }),
                vec![0],
            ),
            ("temperature 0 is greedy", sampler(|s| s.temperature = 0.0), vec![0]),
            ("bias removes", sampler(|s| s.logit_bias = vec![(0, -100.0), (9, 5.0)]), vec![1, 2, 3]),
        ] {
            assert_eq!(support(s, &logits), kept, "{name}");
        }
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        for change in [|_: &mut Sampling| (), |s: &mut Sampling| s.top_k = 3] {
            let mut s = sampler(change);
            let mut counts = [0u32; 3];
            for position in 0..20_000 {
                counts[s.sample(&logits, None, position).unwrap() as usize] += 1;
            }
            for (count, p) in counts.iter().zip([0.5, 0.3, 0.2]) {
                assert!((f64::from(*count) / 20_000.0 - p).abs() < 0.02, "{counts:?}");
            }
        }
    }

    #[test]
    fn seed_and_position_fix_the_draw_and_another_seed_changes_it() {
        let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 * 0.1).collect();
        let run = |seed| {
            let mut s = sampler(|s| s.seed = Some(seed));
            (0..50).map(|p| s.sample(&logits, None, p).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
        let mut s = sampler(|s| s.seed = Some(3));
        assert_eq!(s.sample(&logits, None, 17).unwrap(), run(3)[17], "order of calls does not matter");
    }

    #[test]
    fn penalties_count_prompt_and_completion_as_documented() {
        let greedy = |change: fn(&mut Sampling), prompt: &[u32], completion: &[u32], logits: &[f32]| {
            let mut sampling = Sampling { temperature: 0.0, ..Sampling::default() };
            change(&mut sampling);
            let mut s = Sampler::new(sampling, 0, prompt);
            completion.iter().for_each(|&t| s.accept(t));
            s.sample(logits, None, 0).unwrap()
        };
        let repeat = |s: &mut Sampling| s.repetition_penalty = 2.0;
        assert_eq!(greedy(repeat, &[0], &[], &[1.0, 0.9]), 1, "positive logits are divided");
        assert_eq!(greedy(repeat, &[1], &[], &[-1.0, -0.6]), 0, "negative logits are multiplied");
        let frequency = |s: &mut Sampling| s.frequency_penalty = 0.5;
        assert_eq!(greedy(frequency, &[0, 0, 0], &[], &[1.0, 0.9]), 0, "the prompt does not count");
        assert_eq!(greedy(frequency, &[], &[0], &[1.6, 1.0]), 0);
        assert_eq!(greedy(frequency, &[], &[0, 0], &[1.6, 1.0]), 1, "once per occurrence");
        let presence = |s: &mut Sampling| s.presence_penalty = 0.5;
        assert_eq!(greedy(presence, &[], &[0, 0], &[1.6, 1.0]), 0, "once");
    }

    #[test]
    fn a_broken_row_is_an_error_and_not_a_token() {
        let mut s = sampler(|_| ());
        assert_eq!(s.sample(&[0.0, f32::NAN], None, 0), Err(SampleError::NotANumber));
        assert_eq!(s.sample(&[f32::NEG_INFINITY; 2], None, 0), Err(SampleError::NothingAllowed));
        struct Nothing;
        impl Allowed for Nothing {
            fn restrict(&self, row: &mut [f32]) {
                row.fill(f32::NEG_INFINITY);
            }
        }
        assert_eq!(s.sample(&[0.0, 1.0], Some(&Nothing), 0), Err(SampleError::NothingAllowed));
        assert_eq!(log_probabilities(&[0.0, f32::NAN], 0, 1), None);
    }

    #[test]
    fn log_probabilities_are_the_log_softmax_with_ties_by_id() {
        let (p, top) = log_probabilities(&[2.0, 1.0, 2.0], 1, 2).unwrap();
        let z = (2.0 * 2f64.exp() + 1f64.exp()).ln();
        assert!((f64::from(p) - (1.0 - z)).abs() < 1e-6);
        assert_eq!(top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 2]);
        assert!((f64::from(top[0].1) - (2.0 - z)).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn windowed_nucleus_and_top_k_equal_a_full_sort(weights in proptest::collection::vec(0u8..40, 1..3000), p in 0.0f64..1.0, k in 1usize..50) {
            // Few distinct weights, so that ties are common.
            let row: Vec<f32> = weights.into_iter().map(|w| f32::from(w) / 64.0).collect();
            let mut sorted: Vec<(u32, f32)> = (0u32..).zip(row.iter().copied()).collect();
            let mut windowed = sorted.clone();
            sorted.sort_unstable_by(likelier);
            prop_assert_eq!(likeliest(&row, k), &sorted[..k.min(row.len())]);
            let goal = p * sum(&row);
            keep_nucleus(&mut windowed, goal);
            let mut reached = 0.0;
            let n = sorted.iter().position(|c| { reached += f64::from(c.1); reached >= goal });
            sorted.truncate(n.map_or(sorted.len(), |n| n + 1));
            prop_assert_eq!(windowed, sorted);
        }

        #[test]
        fn the_shortcut_before_top_p_leaves_the_draw_alone(logits in proptest::collection::vec(-8.0f32..8.0, 2..600), p in 0.05f32..0.999, position in 0usize..1000) {
            let mut s = sampler(|s| s.top_p = p);
            let drawn = s.sample(&logits, None, position).unwrap();
            let mut row = logits.clone();
            exponentials(&mut row, largest(&logits).unwrap(), 1.0);
            let mut all: Vec<(u32, f32)> = (0u32..).zip(row.iter().copied()).collect();
            keep_nucleus(&mut all, f64::from(p) * sum(&row));
            let total: f64 = all.iter().map(|c| f64::from(c.1)).sum();
            prop_assert_eq!(Some(drawn), pick(all.into_iter(), uniform(1, position as u64) * total));
        }
    }
}

//! From a row of logits to the next token.
//!
//! Order: mask, logit bias, penalties, temperature, min-p, top-k, top-p, draw (as vLLM does). Invariant: a draw depends on
//! the row, the request and (seed, position) alone, so a seeded run is the same whatever shares its batch.

use std::collections::HashMap;
use stockade_core::infer::Sampling;

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
    fn allows(&self, token: u32) -> bool;
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
        let penalised = sampling.repetition_penalty != 1.0
            || sampling.frequency_penalty != 0.0
            || sampling.presence_penalty != 0.0;
        let mut counts = HashMap::new();
        if sampling.repetition_penalty != 1.0 {
            for &token in prompt {
                counts.insert(
                    token,
                    Count {
                        prompt: true,
                        completion: 0,
                    },
                );
            }
        }
        let seed = sampling.seed.unwrap_or(seed);
        Self {
            sampling,
            seed,
            counts,
            penalised,
            row: Vec::new(),
        }
    }

    /// Draws the token for `position` (counted from the prompt's first token).
    pub fn sample(
        &mut self,
        logits: &[f32],
        allowed: Option<&dyn Allowed>,
        position: usize,
    ) -> Result<u32, SampleError> {
        self.row.clear();
        self.row.extend_from_slice(logits);
        if self.row.iter().any(|x| x.is_nan()) {
            return Err(SampleError::NotANumber);
        }
        if let Some(allowed) = allowed {
            for (token, logit) in self.row.iter_mut().enumerate() {
                if !allowed.allows(token as u32) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        for &(token, bias) in &self.sampling.logit_bias {
            if let Some(logit) = self.row.get_mut(token as usize) {
                *logit += bias;
            }
        }
        self.penalise();
        let best = argmax(&self.row).ok_or(SampleError::NothingAllowed)?;
        if self.sampling.temperature <= 0.0 || self.sampling.top_k == 1 {
            return Ok(best);
        }
        Ok(self
            .draw(self.row[best as usize], uniform(self.seed, position as u64))
            .unwrap_or(best))
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
                *logit = if *logit > 0.0 {
                    *logit / s.repetition_penalty
                } else {
                    *logit * s.repetition_penalty
                };
            }
            if count.completion > 0 {
                *logit -= s.frequency_penalty * count.completion as f32 + s.presence_penalty;
            }
        }
    }

    /// Draws by `u` in 0..1 from the filtered distribution; `max` is the largest logit.
    fn draw(&self, max: f32, u: f64) -> Option<u32> {
        let s = &self.sampling;
        let scale = 1.0 / s.temperature;
        // The mass of a token relative to the likeliest, which has 1.
        let mass = |logit: f32| ((logit - max) * scale).exp();
        let floor = if s.min_p > 0.0 { s.min_p } else { 0.0 };
        let keeps = |logit: f32| {
            let m = mass(logit);
            m > 0.0 && m >= floor
        };
        if s.top_k == 0 && s.top_p >= 1.0 {
            let weights = self.row.iter().enumerate().filter(|&(_, &x)| keeps(x));
            let total: f64 = weights.clone().map(|(_, &x)| f64::from(mass(x))).sum();
            return pick(weights.map(|(i, &x)| (i as u32, mass(x))), u * total);
        }
        let mut candidates: Vec<(u32, f32)> = (0u32..)
            .zip(&self.row)
            .filter(|&(_, &x)| keeps(x))
            .map(|(i, &x)| (i, mass(x)))
            .collect();
        if s.top_k > 0 {
            keep_likeliest(&mut candidates, s.top_k as usize);
        }
        if s.top_p < 1.0 {
            keep_nucleus(&mut candidates, s.top_p);
        }
        let total: f64 = candidates.iter().map(|c| f64::from(c.1)).sum();
        pick(candidates.into_iter(), u * total)
    }
}

/// The first token whose cumulated weight exceeds `target`.
fn pick(weights: impl Iterator<Item = (u32, f32)>, target: f64) -> Option<u32> {
    let mut sum = 0.0;
    let mut last = None;
    for (token, weight) in weights {
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

/// Cuts to the `k` likeliest in falling order; of equals the smaller id comes first.
fn keep_likeliest(candidates: &mut Vec<(u32, f32)>, k: usize) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, likelier);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(likelier);
}

/// Cuts to the shortest run of likeliest tokens that holds `p` of the mass, at least one.
fn keep_nucleus(candidates: &mut Vec<(u32, f32)>, p: f32) {
    let total: f64 = candidates.iter().map(|c| f64::from(c.1)).sum();
    let goal = f64::from(p) * total;
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
pub fn log_probabilities(
    logits: &[f32],
    chosen: u32,
    top: usize,
) -> Option<(f32, Vec<(u32, f32)>)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() || logits.iter().any(|x| x.is_nan()) {
        return None;
    }
    let sum: f64 = logits.iter().map(|&x| f64::from((x - max).exp())).sum();
    let normaliser = f64::from(max) + sum.ln();
    let of = |logit: f32| (f64::from(logit) - normaliser) as f32;
    let mut best: Vec<(u32, f32)> = Vec::new();
    if top > 0 {
        best = (0u32..).zip(logits.iter().copied()).collect();
        keep_likeliest(&mut best, top);
        best.iter_mut().for_each(|b| b.1 = of(b.1));
    }
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
        let mut sampling = Sampling {
            seed: Some(1),
            ..Sampling::default()
        };
        change(&mut sampling);
        Sampler::new(sampling, 0, &[])
    }

    /// Which tokens ever come out over many positions.
    fn support(mut s: Sampler, logits: &[f32]) -> Vec<u32> {
        let drawn: std::collections::BTreeSet<u32> = (0..4000)
            .map(|p| s.sample(logits, None, p).unwrap())
            .collect();
        drawn.into_iter().collect()
    }

    #[test]
    fn filters_keep_exactly_the_tokens_they_promise() {
        // Probabilities 0.5, 0.25, 0.125, 0.125.
        let logits = [0.5f32.ln(), 0.25f32.ln(), 0.125f32.ln(), 0.125f32.ln()];
        for (name, s, kept) in [
            ("everything", sampler(|_| ()), vec![0, 1, 2, 3]),
            ("top-k 2", sampler(|s| s.top_k = 2), vec![0, 1]),
            (
                "top-k tie goes to the smaller id",
                sampler(|s| s.top_k = 3),
                vec![0, 1, 2],
            ),
            ("top-p first is enough", sampler(|s| s.top_p = 0.4), vec![0]),
            ("top-p needs two", sampler(|s| s.top_p = 0.7), vec![0, 1]),
            (
                "top-p tie goes to the smaller id",
                sampler(|s| s.top_p = 0.87),
                vec![0, 1, 2],
            ),
            ("top-p 0 keeps one", sampler(|s| s.top_p = 0.0), vec![0]),
            (
                "min-p half of the best",
                sampler(|s| s.min_p = 0.45),
                vec![0, 1],
            ),
            (
                "top-p counts mass after top-k",
                sampler(|s| {
                    s.top_k = 2;
                    s.top_p = 0.6
                }),
                vec![0],
            ),
            (
                "temperature 0 is greedy",
                sampler(|s| s.temperature = 0.0),
                vec![0],
            ),
            (
                "bias removes",
                sampler(|s| s.logit_bias = vec![(0, -100.0), (9, 5.0)]),
                vec![1, 2, 3],
            ),
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
                assert!(
                    (f64::from(*count) / 20_000.0 - p).abs() < 0.02,
                    "{counts:?}"
                );
            }
        }
    }

    #[test]
    fn seed_and_position_fix_the_draw_and_another_seed_changes_it() {
        let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 * 0.1).collect();
        let run = |seed| {
            let mut s = sampler(|s| s.seed = Some(seed));
            (0..50)
                .map(|p| s.sample(&logits, None, p).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
        let mut s = sampler(|s| s.seed = Some(3));
        assert_eq!(
            s.sample(&logits, None, 17).unwrap(),
            run(3)[17],
            "order of calls does not matter"
        );
    }

    #[test]
    fn penalties_count_prompt_and_completion_as_documented() {
        let greedy =
            |change: fn(&mut Sampling), prompt: &[u32], completion: &[u32], logits: &[f32]| {
                let mut sampling = Sampling {
                    temperature: 0.0,
                    ..Sampling::default()
                };
                change(&mut sampling);
                let mut s = Sampler::new(sampling, 0, prompt);
                completion.iter().for_each(|&t| s.accept(t));
                s.sample(logits, None, 0).unwrap()
            };
        let repeat = |s: &mut Sampling| s.repetition_penalty = 2.0;
        assert_eq!(
            greedy(repeat, &[0], &[], &[1.0, 0.9]),
            1,
            "positive logits are divided"
        );
        assert_eq!(
            greedy(repeat, &[1], &[], &[-1.0, -0.6]),
            0,
            "negative logits are multiplied"
        );
        let frequency = |s: &mut Sampling| s.frequency_penalty = 0.5;
        assert_eq!(
            greedy(frequency, &[0, 0, 0], &[], &[1.0, 0.9]),
            0,
            "the prompt does not count"
        );
        assert_eq!(greedy(frequency, &[], &[0], &[1.6, 1.0]), 0);
        assert_eq!(
            greedy(frequency, &[], &[0, 0], &[1.6, 1.0]),
            1,
            "once per occurrence"
        );
        let presence = |s: &mut Sampling| s.presence_penalty = 0.5;
        assert_eq!(greedy(presence, &[], &[0, 0], &[1.6, 1.0]), 0, "once");
    }

    #[test]
    fn a_broken_row_is_an_error_and_not_a_token() {
        let mut s = sampler(|_| ());
        assert_eq!(
            s.sample(&[0.0, f32::NAN], None, 0),
            Err(SampleError::NotANumber)
        );
        assert_eq!(
            s.sample(&[f32::NEG_INFINITY; 2], None, 0),
            Err(SampleError::NothingAllowed)
        );
        struct Nothing;
        impl Allowed for Nothing {
            fn allows(&self, _: u32) -> bool {
                false
            }
        }
        assert_eq!(
            s.sample(&[0.0, 1.0], Some(&Nothing), 0),
            Err(SampleError::NothingAllowed)
        );
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
        fn windowed_nucleus_equals_a_full_sort(weights in proptest::collection::vec(0.001f32..1.0, 1..2000), p in 0.0f32..1.0) {
            let candidates: Vec<(u32, f32)> = (0u32..).zip(weights).collect();
            let mut windowed = candidates.clone();
            keep_nucleus(&mut windowed, p);
            let mut full = candidates;
            full.sort_unstable_by(likelier);
            let total: f64 = {
                // The same order of additions as the code under test, so that the goal is the same number.
                let by_id = {
                    let mut c = full.clone();
                    c.sort_unstable_by_key(|c| c.0);
                    c
                };
                by_id.iter().map(|c| f64::from(c.1)).sum()
            };
            let mut sum = 0.0;
            let n = full.iter().position(|c| { sum += f64::from(c.1); sum >= f64::from(p) * total }).map_or(full.len(), |i| i + 1);
            full.truncate(n);
            prop_assert_eq!(windowed, full);
        }
    }
}

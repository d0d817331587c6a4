//! Figures with intervals.

use serde_json::{Value, json};

pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u32), |(sum, n), x| (sum + x, n + 1));
    sum / f64::from(n.max(1))
}

/// A share of successes with its 95 % interval (Wilson 1927).
pub fn share(successes: &[bool]) -> Value {
    let n = successes.len() as f64;
    let p = mean(successes.iter().map(|&hit| f64::from(u8::from(hit))));
    let z = 1.96f64;
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    json!({"value": p, "n": successes.len(), "interval": [centre - half, centre + half]})
}

/// Average precision of scores for what is positive, with a bootstrap 95 % interval.
pub fn average_precision(scored: &[(f64, bool)]) -> Value {
    let mut resampled: Vec<f64> = (0..1000u64)
        .map(|round| {
            let draw = |i: usize| mix(round << 32 | i as u64) as usize % scored.len();
            precision_of(&(0..scored.len()).map(|i| scored[draw(i)]).collect::<Vec<_>>())
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let positive = scored.iter().filter(|(_, positive)| *positive).count();
    json!({
        "average_precision": precision_of(scored), "n": scored.len(), "positive": positive,
        "interval": [resampled[25], resampled[974]],
    })
}

/// The mean over positives of the precision at their rank; ties share the rank of their last.
fn precision_of(scored: &[(f64, bool)]) -> f64 {
    let mut order = scored.to_vec();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut sum, mut at) = (0usize, 0.0, 0);
    while at < order.len() {
        let end = at + order[at..].iter().take_while(|(score, _)| *score == order[at].0).count();
        let new = order[at..end].iter().filter(|(_, positive)| *positive).count();
        hits += new;
        sum += new as f64 * hits as f64 / end as f64;
        at = end;
    }
    if hits == 0 { 0.0 } else { sum / hits as f64 }
}

/// SplitMix64's finaliser.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_of_known_rankings() {
        assert_eq!(precision_of(&[(0.9, true), (0.8, true), (0.1, false)]), 1.0);
        // Precision 1/2 at the first hit, 2/3 at the second.
        let mixed = precision_of(&[(0.9, false), (0.8, true), (0.7, true)]);
        assert!((mixed - (0.5 + 2.0 / 3.0) / 2.0).abs() < 1e-12);
        // A constant score is as good as the share of positives.
        assert_eq!(precision_of(&[(0.5, true), (0.5, false), (0.5, false), (0.5, true)]), 0.5);
    }

    #[test]
    fn an_interval_holds_its_share() {
        let share = share(&[true, true, true, false]);
        let bounds = share["interval"].as_array().unwrap();
        assert!(bounds[0].as_f64().unwrap() < 0.75 && bounds[1].as_f64().unwrap() > 0.75);
    }
}

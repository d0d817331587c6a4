//! One ranking out of two.
//!
//! Source of reciprocal rank fusion: Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and
//! individual Rank Learning Methods".

use std::collections::BTreeMap;

/// How rankings become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ranker {
    /// By places alone; a larger `k` makes first places count less. The best possible score is 1.
    Rrf { k: f32 },
    /// By scores, each ranking's between its least (0) and its best (1); the first one's weight is `alpha`.
    Weighted { alpha: f32 },
}

/// Ids with their scores under both rankings, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Fused {
    pub id: String,
    pub score: f32,
    pub signals: [Option<f32>; 2],
}

/// `rankings`: ids and scores, best first.
pub fn fuse(rankings: [&[(String, f32)]; 2], ranker: Ranker) -> Vec<Fused> {
    let mut fused: BTreeMap<&str, Fused> = BTreeMap::new();
    for (which, ranking) in rankings.into_iter().enumerate() {
        let best = ranking.iter().map(|(_, score)| *score).fold(f32::MIN, f32::max);
        let least = ranking.iter().map(|(_, score)| *score).fold(f32::MAX, f32::min);
        for (place, (id, score)) in ranking.iter().enumerate() {
            let share = match ranker {
                Ranker::Rrf { k } => 0.5 * (k + 1.0) / (k + 1.0 + place as f32),
                Ranker::Weighted { alpha } => {
                    let weight = if which == 0 { alpha } else { 1.0 - alpha };
                    // Of a single score, or of equal ones, each is the best.
                    weight * if best > least { (score - least) / (best - least) } else { 1.0 }
                }
            };
            let new = || Fused { id: id.clone(), score: 0.0, signals: [None; 2] };
            let entry = fused.entry(id).or_insert_with(new);
            entry.score += share;
            entry.signals[which] = Some(*score);
        }
    }
    let mut fused: Vec<Fused> = fused.into_values().collect();
    fused.sort_by(|a, b| b.score.total_cmp(&a.score));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranking(scores: &[(&str, f32)]) -> Vec<(String, f32)> {
        scores.iter().map(|(id, score)| (id.to_string(), *score)).collect()
    }

    fn ids(fused: &[Fused]) -> Vec<&str> {
        fused.iter().map(|f| f.id.as_str()).collect()
    }

    #[test]
    fn rrf_looks_at_places_and_weights_at_scores() {
        let first = ranking(&[("a", 0.9), ("b", 0.89), ("c", 0.1)]);
        let second = ranking(&[("b", 12.0), ("d", 11.0), ("a", 1.0)]);
        let fused = fuse([&first, &second], Ranker::Rrf { k: 60.0 });
        assert_eq!(ids(&fused), ["b", "a", "d", "c"]);
        assert!((fused[0].score - 0.5 * (61.0 / 62.0 + 1.0)).abs() < 1e-6);
        assert_eq!(fused[1].signals, [Some(0.9), Some(1.0)]);
        assert_eq!(fused[2].signals, [None, Some(11.0)]);
        assert_eq!(ids(&fuse([&first, &second], Ranker::Weighted { alpha: 1.0 }))[..2], ["a", "b"]);
        assert_eq!(ids(&fuse([&first, &second], Ranker::Weighted { alpha: 0.0 }))[..2], ["b", "d"]);
    }

    #[test]
    fn one_ranking_or_none_is_no_division_by_zero() {
        let one = ranking(&[("a", 0.5)]);
        let fused = fuse([&one, &[]], Ranker::Weighted { alpha: 0.5 });
        assert_eq!(fused[0].score, 0.5);
        assert!(fuse([&[], &[]], Ranker::Rrf { k: 60.0 }).is_empty());
    }
}

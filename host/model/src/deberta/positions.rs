//! Distances between tokens, in buckets: exact when near, logarithmic when far.

use crate::config::RelativePositions;

/// Maps a distance to its row of the distance embeddings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Buckets {
    buckets: usize,
    /// Distances from here on share the last bucket, in tokens.
    max_distance: usize,
}

impl Buckets {
    pub(super) fn new(positions: RelativePositions) -> Self {
        Self { buckets: positions.buckets, max_distance: positions.max_distance }
    }

    /// Rows of the distance embeddings.
    pub(super) fn rows(&self) -> usize {
        2 * self.buckets
    }

    /// The row of the distance `query - key`.
    pub(super) fn row(&self, distance: isize) -> usize {
        let mid = self.buckets / 2;
        let away = distance.unsigned_abs();
        let bucket = if away <= mid {
            away
        } else {
            // As the reference computes it: in f32. Distances grow by the same factor from bucket to bucket.
            let far = (away as f32 / mid as f32).ln() / ((self.max_distance - 1) as f32 / mid as f32).ln();
            (far * (mid - 1) as f32).ceil() as usize + mid
        };
        let row = if distance < 0 { self.buckets.saturating_sub(bucket) } else { self.buckets + bucket };
        row.min(self.rows() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_distances_have_their_own_row_and_far_ones_share() {
        let buckets = Buckets::new(RelativePositions { buckets: 32, max_distance: 512 });
        // `make_log_bucket_position` of transformers, shifted by 32 and clamped to 0..=63.
        for (distance, row) in [
            (0, 32),
            (1, 33),
            (-1, 31),
            (15, 47),
            (16, 48),
            (17, 49),
            (-17, 15),
            (20, 49),
            (21, 50),
            (100, 56),
            (-100, 8),
            (255, 60),
            (511, 63),
            (-511, 1),
            (100_000, 63),
            (-100_000, 0),
        ] {
            assert_eq!(buckets.row(distance), row, "{distance}");
        }
    }
}

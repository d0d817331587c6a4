//! The closest of many.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A slot and how close it is to what is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Near {
    pub closeness: f32,
    pub slot: u32,
}

impl Eq for Near {}
impl Ord for Near {
    /// Closer is greater; of equally close ones the older slot.
    fn cmp(&self, other: &Self) -> Ordering {
        self.closeness.total_cmp(&other.closeness).then(other.slot.cmp(&self.slot))
    }
}
impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best of what it was shown, at most so many.
#[derive(Debug)]
pub(crate) struct Best {
    most: usize,
    heap: BinaryHeap<Reverse<Near>>,
}

impl Best {
    pub fn new(most: usize) -> Self {
        Self { most, heap: BinaryHeap::with_capacity(most + 1) }
    }

    pub fn add(&mut self, near: Near) {
        if self.heap.len() < self.most || self.heap.peek().is_none_or(|worst| near > worst.0) {
            self.heap.push(Reverse(near));
            if self.heap.len() > self.most {
                self.heap.pop();
            }
        }
    }

    /// Closest first.
    pub fn into_sorted(self) -> Vec<Near> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(near)| near).collect()
    }
}

//! The graph of an approximate search: usearch's HNSW over rows that stay in our memory.
//!
//! usearch is given the address of a row in place of its numbers, and our measure in place of its own. So there is one copy of
//! each vector, and the graph compares with the very bits that an exact search compares with. It is only ever added to: its
//! own removal would keep the links that lead to a node when the node becomes another, and some nodes would be found no
//! more. A removed node stays as a signpost that no answer holds, until the graph is built anew
//! ([`Graphs`](crate::graphs::Graphs)).
//!
//! Source: Malkov and Yashunin 2016, "Efficient and robust approximate nearest neighbor search using Hierarchical
//! Navigable Small World graphs", arXiv:1603.09320.
//!
//! Invariant: every address that usearch was given is that of a row of `D` numbers which lives as long as the graph.

use crate::distance::closeness;
use crate::settings::Settings;
use std::collections::HashMap;
use std::ptr::with_exposed_provenance;
use std::sync::Arc;
use stockade_core::vectors::IndexSettings;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

/// `[D]`; of length 1 under [`Metric::Cosine`](stockade_core::vectors::Metric::Cosine).
pub(crate) type Row = Arc<[f32]>;
/// What usearch says when it cannot, which means that memory is short.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Nodes that the first allocation is for.
const FIRST: usize = 1024;

pub(crate) struct Graph {
    index: Index,
    dimensions: usize,
    /// By node. Those of removed nodes too.
    rows: Vec<Row>,
    /// By node: the slot that it stands for, unless it was removed.
    slots: Vec<Option<u32>>,
    nodes: HashMap<u32, u32>,
    at_once: usize,
}

impl Graph {
    /// # Errors
    /// Memory is short.
    pub fn new(index: IndexSettings, settings: &Settings) -> Result<Self, Failure> {
        let options = IndexOptions {
            dimensions: size_of::<usize>(),
            metric: MetricKind::IP,
            quantization: ScalarKind::U8,
            connectivity: settings.links.clamp(2, 64),
            expansion_add: settings.build_candidates.max(settings.links),
            expansion_search: settings.search_candidates,
            multi: false,
        };
        let dimensions = index.dimensions as usize;
        let row = move |address: *const u8| {
            // SAFETY: usearch hands out copies of the bytes of an address that it was given, by `add` or `search`.
            let address = unsafe { address.cast::<[u8; size_of::<usize>()]>().read_unaligned() };
            let first = with_exposed_provenance::<f32>(usize::from_ne_bytes(address));
            // SAFETY: it is that of a row of this length, which lives as long as the graph or the search.
            unsafe { std::slice::from_raw_parts(first, dimensions) }
        };
        let mut graph = Index::new(&options)?;
        // Finite, since the library is compiled without a notion of what is not. Neither it nor `closeness` panics: a panic
        // on the way through C++ would end the process.
        graph.change_metric::<u8>(Box::new(move |a, b| -closeness(index.metric, row(a), row(b))));
        Ok(Self {
            index: graph,
            dimensions,
            rows: Vec::new(),
            slots: Vec::new(),
            nodes: HashMap::new(),
            at_once: settings.at_once,
        })
    }

    /// Slots that it holds.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Nodes that stand for no slot any more.
    pub fn removed(&self) -> usize {
        self.rows.len() - self.nodes.len()
    }

    /// Adds a slot that it does not hold.
    ///
    /// # Errors
    /// Memory is short; it does not hold the slot.
    pub fn add(&mut self, slot: u32, row: Row) -> Result<(), Failure> {
        assert_eq!(row.len(), self.dimensions, "rows of an index are of one length");
        let node = self.rows.len();
        if node >= self.index.capacity() {
            // It takes no more than was reserved, and no more searches at once than were announced.
            self.index.reserve_capacity_and_threads(FIRST.max(2 * node), self.at_once)?;
        }
        let address = row.as_ptr().expose_provenance().to_ne_bytes();
        // Kept before it is known whether it was added, for a failure may leave the address there.
        self.rows.push(row);
        self.slots.push(None);
        self.index.add(node as u64, &address)?;
        self.slots[node] = Some(slot);
        self.nodes.insert(slot, node as u32);
        Ok(())
    }

    /// Lets go of a slot, where it holds it.
    pub fn remove(&mut self, slot: u32) {
        if let Some(node) = self.nodes.remove(&slot) {
            self.slots[node as usize] = None;
        }
    }

    /// Slots close to `query` that `accept` lets through, at most `candidates`, about the closest.
    ///
    /// # Errors
    /// Memory is short, or more searches run at once than the settings say.
    pub fn search(&self, query: &[f32], candidates: usize, accept: impl Fn(u32) -> bool) -> Result<Vec<u32>, Failure> {
        assert_eq!(query.len(), self.dimensions, "a query has the length of the rows");
        if self.nodes.is_empty() {
            return Ok(Vec::new());
        }
        let slot = |node: u64| self.slots.get(node as usize).copied().flatten();
        let address = query.as_ptr().expose_provenance().to_ne_bytes();
        let found = self.index.filtered_search(&address, candidates, |node| slot(node).is_some_and(&accept))?;
        Ok(found.keys.into_iter().filter_map(slot).collect())
    }
}

#[cfg(test)]
mod tests;

//! An index in memory: vectors, ids and attributes by slot, and the graph once there are enough of them.

use crate::distance::{closeness, normalise, score};
use crate::filter::Filter;
use crate::hnsw::{Best, Graph, Near};
use crate::settings::Settings;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use stockade_core::vectors::{Entry, IndexSettings, Metric, Neighbour};

/// Slots that are looked at to learn how many a filter lets through.
const SAMPLE: usize = 256;
/// Of them, those that must pass for the graph to be worth it: through a rarer filter it would have to be searched nearly
/// whole, and comparing only what passes is cheaper.
const ENOUGH: usize = SAMPLE / 8;

/// Slots are reused; a graph that is there and `waiting` hold all of them together.
pub(crate) struct Contents {
    index: IndexSettings,
    settings: Settings,
    /// `[slots, D]`; of length 1 under [`Metric::Cosine`]. A free slot's is zero.
    vectors: Vec<f32>,
    slots: Vec<Option<Slot>>,
    by_id: HashMap<Arc<str>, u32>,
    free: Vec<u32>,
    graph: Option<Graph>,
    /// Slots that the graph does not hold yet.
    waiting: Vec<u32>,
    bytes: usize,
}

struct Slot {
    id: Arc<str>,
    attributes: Map<String, Value>,
    bytes: usize,
}

impl Contents {
    pub fn new(index: IndexSettings, settings: Settings) -> Self {
        Self {
            index,
            settings,
            vectors: Vec::new(),
            slots: Vec::new(),
            by_id: HashMap::new(),
            free: Vec::new(),
            graph: None,
            waiting: Vec::new(),
            bytes: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// About how much memory an entry takes, its part of the graph included.
    pub fn bytes_of(&self, id: &str, attributes_bytes: usize) -> usize {
        // A parsed attribute takes several times its text; a link is four bytes.
        4 * self.dimensions() + 8 * self.settings.links + 3 * id.len() + 5 * attributes_bytes + 300
    }

    pub fn has(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// The attributes of an entry.
    pub fn attributes(&self, id: &str) -> Option<&Map<String, Value>> {
        let slot = self.by_id.get(id)?;
        self.slots[*slot as usize].as_ref().map(|s| &s.attributes)
    }

    /// Adds or replaces. Vectors have been checked; attributes come with the length of their text.
    pub fn upsert(&mut self, entries: Vec<(Entry, usize)>) {
        let replaced: Vec<String> =
            entries.iter().filter(|(e, _)| self.has(&e.id)).map(|(e, _)| e.id.clone()).collect();
        self.delete(&replaced);
        for (entry, attributes_bytes) in entries {
            if self.has(&entry.id) {
                // Twice in one call: the later one counts.
                self.delete(std::slice::from_ref(&entry.id));
            }
            self.add(entry, attributes_bytes);
        }
        if self.graph.is_none() && self.len() > self.settings.exact_up_to {
            self.graph = Some(Graph::new(self.settings.links, self.settings.build_candidates));
            self.waiting = self.by_id.values().copied().collect();
            self.waiting.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    fn add(&mut self, entry: Entry, attributes_bytes: usize) {
        let bytes = self.bytes_of(&entry.id, attributes_bytes);
        let mut vector = entry.vector;
        if self.index.metric == Metric::Cosine {
            normalise(&mut vector);
        }
        let id: Arc<str> = entry.id.into();
        let slot = Some(Slot { id: id.clone(), attributes: entry.attributes, bytes });
        let at = match self.free.pop() {
            Some(at) => {
                self.vector_mut(at).copy_from_slice(&vector);
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.vectors.extend_from_slice(&vector);
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.bytes += bytes;
        self.by_id.insert(id, at);
        if self.graph.is_some() {
            self.waiting.push(at);
        }
    }

    /// Removes entries, vectors and links; answers how many were there.
    pub fn delete(&mut self, ids: &[String]) -> usize {
        let gone: Vec<u32> = ids.iter().filter_map(|id| self.by_id.remove(id.as_str())).collect();
        if gone.is_empty() {
            return 0;
        }
        let (vectors, metric, d) = (&self.vectors, self.index.metric, self.dimensions());
        if let Some(graph) = &mut self.graph {
            graph.remove(&gone, |a, b| closeness(metric, row(vectors, d, a), row(vectors, d, b)));
            self.waiting.retain(|slot| !gone.contains(slot));
        }
        for &slot in &gone {
            self.vector_mut(slot).fill(0.0);
            if let Some(slot) = self.slots[slot as usize].take() {
                self.bytes -= slot.bytes;
            }
        }
        self.free.extend(&gone);
        if self.len() * 2 < self.settings.exact_up_to {
            self.graph = None;
            self.waiting.clear();
        }
        gone.len()
    }

    /// Puts at most `most` waiting vectors into the graph; whether more wait.
    pub fn build(&mut self, most: usize) -> bool {
        let (vectors, metric, d) = (&self.vectors, self.index.metric, self.dimensions());
        let Some(graph) = &mut self.graph else { return false };
        for _ in 0..most {
            let Some(slot) = self.waiting.pop() else { break };
            graph.insert(slot, |a, b| closeness(metric, row(vectors, d, a), row(vectors, d, b)));
        }
        !self.waiting.is_empty()
    }

    /// Whether all that should be in a graph is.
    pub fn is_built(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Closest first. The vector has been checked.
    pub fn search(&self, mut vector: Vec<f32>, limit: usize, filter: Option<&Filter>, exact: bool) -> Vec<Neighbour> {
        if self.index.metric == Metric::Cosine {
            normalise(&mut vector);
        }
        let near = |slot: u32| closeness(self.index.metric, &vector, row(&self.vectors, self.dimensions(), slot));
        let passes = |slot: u32| {
            let slot = self.slots.get(slot as usize).and_then(Option::as_ref);
            slot.is_some_and(|slot| filter.is_none_or(|f| f.matches(&slot.attributes)))
        };
        let mut best = Best::new(limit);
        let mut compare = |slot: u32| {
            if passes(slot) {
                best.add(Near { node: slot, closeness: near(slot) });
            }
        };
        match &self.graph {
            Some(graph) if !exact && graph.len() > self.waiting.len() && (filter.is_none() || self.many(&passes)) => {
                self.waiting.iter().copied().for_each(&mut compare);
                let candidates = self.settings.search_candidates.max(4 * limit);
                for found in graph.search(candidates, near, passes) {
                    best.add(found);
                }
            }
            _ => (0..self.slots.len() as u32).for_each(compare),
        }
        best.into_sorted().into_iter().filter_map(|found| self.neighbour(found)).collect()
    }

    fn neighbour(&self, found: Near) -> Option<Neighbour> {
        let slot = self.slots[found.node as usize].as_ref()?;
        let score = score(self.index.metric, found.closeness);
        Some(Neighbour { id: slot.id.to_string(), score, attributes: slot.attributes.clone() })
    }

    /// Whether a filter lets enough through, by an even sample.
    fn many(&self, passes: &impl Fn(u32) -> bool) -> bool {
        let step = (self.slots.len() / SAMPLE).max(1);
        (0..self.slots.len()).step_by(step).filter(|&slot| passes(slot as u32)).count() >= ENOUGH
    }

    fn dimensions(&self) -> usize {
        self.index.dimensions as usize
    }

    fn vector_mut(&mut self, slot: u32) -> &mut [f32] {
        let d = self.dimensions();
        &mut self.vectors[slot as usize * d..][..d]
    }
}

fn row(vectors: &[f32], d: usize, slot: u32) -> &[f32] {
    &vectors[slot as usize * d..][..d]
}

#[cfg(test)]
mod tests;

//! An index in memory: vectors, ids and attributes by slot, and graphs once there are enough of them.

use crate::best::{Best, Near};
use crate::distance::{closeness, normalise, score};
use crate::filter::Filter;
use crate::graph::Row;
use crate::graphs::Graphs;
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

/// Memory that a node of a graph takes beside its row and its links.
const NODE_BYTES: usize = 250;

/// Slots are reused.
pub(crate) struct Contents {
    index: IndexSettings,
    settings: Settings,
    slots: Vec<Option<Slot>>,
    by_id: HashMap<Arc<str>, u32>,
    free: Vec<u32>,
    graphs: Option<Graphs>,
    bytes: usize,
}

struct Slot {
    id: Arc<str>,
    row: Row,
    attributes: Map<String, Value>,
    bytes: usize,
}

impl Contents {
    pub fn new(index: IndexSettings, settings: Settings) -> Self {
        Self { index, settings, slots: Vec::new(), by_id: HashMap::new(), free: Vec::new(), graphs: None, bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes + self.spare_bytes()
    }

    /// About how much of it is what graphs keep of removed entries, and a graph that will replace another.
    pub fn spare_bytes(&self) -> usize {
        self.graphs.as_ref().map_or(0, |graphs| graphs.spare_bytes(self.row_bytes(), self.node_bytes()))
    }

    /// Gives them back. What is in no graph any more waits to be put into one.
    pub fn shed(&mut self) {
        self.graphs = None;
        self.begin_graphs();
    }

    /// About how much memory an entry takes, its part of the graph included.
    pub fn bytes_of(&self, id: &str, attributes_bytes: usize) -> usize {
        // A parsed attribute takes several times its text.
        self.row_bytes() + self.node_bytes() + 3 * id.len() + 5 * attributes_bytes + 300
    }

    fn row_bytes(&self) -> usize {
        4 * self.index.dimensions as usize
    }

    fn node_bytes(&self) -> usize {
        // A link takes four bytes; twice as many as set are on the lowest level, and some on others.
        12 * self.settings.links + NODE_BYTES
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
        self.begin_graphs();
    }

    fn begin_graphs(&mut self) {
        if self.graphs.is_none() && self.len() > self.settings.exact_up_to {
            match Graphs::new(self.index, self.settings.clone(), taken(&self.slots)) {
                Ok(graphs) => self.graphs = Some(graphs),
                Err(e) => tracing::error!(error = %e, "a vector graph cannot be begun"),
            }
        }
    }

    fn add(&mut self, entry: Entry, attributes_bytes: usize) {
        let bytes = self.bytes_of(&entry.id, attributes_bytes);
        let mut vector = entry.vector;
        if self.index.metric == Metric::Cosine {
            normalise(&mut vector);
        }
        let id: Arc<str> = entry.id.into();
        let slot = Some(Slot { id: id.clone(), row: vector.into(), attributes: entry.attributes, bytes });
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.bytes += bytes;
        self.by_id.insert(id, at);
        if let Some(graphs) = &mut self.graphs {
            graphs.add(at);
        }
    }

    /// Removes entries; answers how many were there.
    pub fn delete(&mut self, ids: &[String]) -> usize {
        let gone: Vec<u32> = ids.iter().filter_map(|id| self.by_id.remove(id.as_str())).collect();
        if gone.is_empty() {
            return 0;
        }
        if let Some(graphs) = &mut self.graphs {
            graphs.remove(&gone);
        }
        for &slot in &gone {
            if let Some(slot) = self.slots[slot as usize].take() {
                self.bytes -= slot.bytes;
            }
        }
        self.free.extend(&gone);
        if self.len() * 2 < self.settings.exact_up_to {
            self.graphs = None;
        }
        gone.len()
    }

    /// Does at most so many steps of building; whether there is more to do.
    pub fn build(&mut self, most: usize) -> bool {
        let slots = &self.slots;
        let Some(graphs) = &mut self.graphs else { return false };
        for _ in 0..most {
            let row = |slot: u32| slots[slot as usize].as_ref().map(|s| s.row.clone());
            if graphs.is_built() {
                break;
            }
            if let Err(e) = graphs.build(|| taken(slots), row) {
                tracing::error!(error = %e, "a vector graph cannot be built on; what it lacks is searched one by one");
                return false;
            }
        }
        !graphs.is_built()
    }

    /// Whether all that should be in a graph is.
    pub fn is_built(&self) -> bool {
        self.graphs.as_ref().is_none_or(Graphs::is_built)
    }

    /// Closest first. The vector has been checked.
    pub fn search(&self, mut vector: Vec<f32>, limit: usize, filter: Option<&Filter>, exact: bool) -> Vec<Neighbour> {
        if self.index.metric == Metric::Cosine {
            normalise(&mut vector);
        }
        let passing = |at: u32| {
            let slot = self.slots.get(at as usize)?.as_ref()?;
            filter.is_none_or(|f| f.matches(&slot.attributes)).then_some(slot)
        };
        let mut best = Best::new(limit);
        let compare = |at: u32| {
            if let Some(slot) = passing(at) {
                best.add(Near { slot: at, closeness: closeness(self.index.metric, &vector, &slot.row) });
            }
        };
        // Graphs hold taken slots alone; looking at one costs a miss of the cache.
        let passes = |at: u32| filter.is_none() || passing(at).is_some();
        let all = 0..self.slots.len() as u32;
        match self.graphs.as_ref().map(Graphs::serving) {
            Some((graph, waiting))
                if !exact && graph.len() > waiting.len() && (filter.is_none() || self.many(&passes)) =>
            {
                let candidates = self.settings.search_candidates.max(4 * limit);
                match graph.search(&vector, candidates, passes) {
                    Ok(found) if found.len() >= limit => found.iter().chain(waiting).copied().for_each(compare),
                    // Some cannot be reached in the graph, or there are no more.
                    Ok(_) => all.for_each(compare),
                    Err(e) => {
                        tracing::error!(error = %e, "a vector graph cannot be searched");
                        all.for_each(compare);
                    }
                }
            }
            _ => all.for_each(compare),
        }
        best.into_sorted().into_iter().filter_map(|found| self.neighbour(found)).collect()
    }

    fn neighbour(&self, found: Near) -> Option<Neighbour> {
        let slot = self.slots[found.slot as usize].as_ref()?;
        let score = score(self.index.metric, found.closeness);
        Some(Neighbour { id: slot.id.to_string(), score, attributes: slot.attributes.clone() })
    }

    /// Whether a filter lets enough through, by an even sample.
    fn many(&self, passes: &impl Fn(u32) -> bool) -> bool {
        let step = (self.slots.len() / SAMPLE).max(1);
        (0..self.slots.len()).step_by(step).filter(|&slot| passes(slot as u32)).count() >= ENOUGH
    }
}

/// Slots that hold an entry, the oldest last: what waits for a graph is taken from the end.
fn taken(slots: &[Option<Slot>]) -> Vec<u32> {
    (0..slots.len()).rev().filter(|&at| slots[at].is_some()).map(|at| at as u32).collect()
}

#[cfg(test)]
mod tests;

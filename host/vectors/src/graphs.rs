//! The graph that searches use, what waits to be put into it, and the graph that will replace it.
//!
//! Removed nodes make a graph longer to search and keep their rows. Once they are half as many as the slots, a successor is
//! begun, and it serves when it holds everything; were the removed ones to become more than the slots before that, it serves at
//! once and what it does not hold yet is compared one by one. So memory stays within a few times that of the slots, however
//! fast entries are replaced.
//!
//! Invariant: each graph holds or waits for every slot that is taken, and no other.

use crate::graph::{Failure, Graph, Row};
use crate::settings::Settings;
use std::collections::HashSet;
use stockade_core::vectors::IndexSettings;

pub(crate) struct Graphs {
    index: IndexSettings,
    settings: Settings,
    serving: Growing,
    successor: Option<Growing>,
}

struct Growing {
    graph: Graph,
    waiting: Vec<u32>,
}

impl Growing {
    fn new(index: IndexSettings, settings: &Settings, slots: Vec<u32>) -> Result<Self, Failure> {
        Ok(Self { graph: Graph::new(index, settings)?, waiting: slots })
    }

    fn slots(&self) -> usize {
        self.graph.len() + self.waiting.len()
    }

    fn remove(&mut self, gone: &HashSet<u32>) {
        gone.iter().for_each(|slot| self.graph.remove(*slot));
        self.waiting.retain(|slot| !gone.contains(slot));
    }

    /// Puts a waiting slot into the graph; whether one waited.
    fn grow(&mut self, row: impl Fn(u32) -> Option<Row>) -> Result<bool, Failure> {
        let Some(slot) = self.waiting.last().copied() else { return Ok(false) };
        if let Some(row) = row(slot) {
            self.graph.add(slot, row)?;
        }
        self.waiting.pop();
        Ok(true)
    }
}

impl Graphs {
    /// Of these slots, all of which wait at first.
    ///
    /// # Errors
    /// Memory is short.
    pub fn new(index: IndexSettings, settings: Settings, slots: Vec<u32>) -> Result<Self, Failure> {
        Ok(Self { index, serving: Growing::new(index, &settings, slots)?, settings, successor: None })
    }

    /// The graph to search, and the slots that it does not hold.
    pub fn serving(&self) -> (&Graph, &[u32]) {
        (&self.serving.graph, &self.serving.waiting)
    }

    /// About the memory of what is beyond one node for each slot: removed ones with their rows, and the successor.
    pub fn spare_bytes(&self, row_bytes: usize, node_bytes: usize) -> usize {
        let removed = |graph: &Graph| graph.removed() * (row_bytes + node_bytes);
        let successor = self.successor.as_ref().map(|s| removed(&s.graph) + s.graph.len() * node_bytes);
        removed(&self.serving.graph) + successor.unwrap_or(0)
    }

    /// Takes in a slot that neither graph has.
    pub fn add(&mut self, slot: u32) {
        self.serving.waiting.push(slot);
        if let Some(successor) = &mut self.successor {
            successor.waiting.push(slot);
        }
    }

    pub fn remove(&mut self, gone: &[u32]) {
        let gone = gone.iter().copied().collect();
        self.serving.remove(&gone);
        if let Some(successor) = &mut self.successor {
            successor.remove(&gone);
        }
    }

    /// Whether nothing waits, and no graph is to be replaced.
    pub fn is_built(&self) -> bool {
        self.serving.waiting.is_empty() && self.successor.is_none() && !self.is_worn()
    }

    /// Does the next step towards it: puts a slot into a graph, or replaces the one that serves. `slots` are all that are taken.
    ///
    /// # Errors
    /// Memory is short. Nothing is lost: what waited waits on.
    pub fn build(&mut self, slots: impl Fn() -> Vec<u32>, row: impl Fn(u32) -> Option<Row>) -> Result<(), Failure> {
        if self.successor.is_none() && self.is_worn() {
            self.successor = Some(Growing::new(self.index, &self.settings, slots())?);
        }
        let (all, removed) = (self.serving.slots(), self.serving.graph.removed());
        let its_turn = |s: &mut Growing| s.waiting.is_empty() || removed > all || s.graph.removed() > all / 2;
        if let Some(successor) = self.successor.take_if(its_turn) {
            self.serving = successor;
        } else if !self.serving.grow(&row)?
            && let Some(successor) = &mut self.successor
        {
            successor.grow(&row)?;
        }
        Ok(())
    }

    fn is_worn(&self) -> bool {
        self.serving.graph.removed() > self.serving.slots() / 2
    }
}

#[cfg(test)]
mod tests;

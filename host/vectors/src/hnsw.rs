//! The graph of an approximate search: nodes are slots of [`Contents`](crate::contents::Contents), links lead to close ones.
//!
//! Source: Malkov and Yashunin 2016, "Efficient and robust approximate nearest neighbor search using Hierarchical
//! Navigable Small World graphs", arXiv:1603.09320. Beyond it: nodes are really removed, and whoever linked to them takes
//! over their links (the paper has no deletion).
//!
//! Invariant: no link leads to a node that the graph does not hold, and none to itself.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Highest level of a node; the level of the entry in an index of millions is 6.
const MAX_LEVEL: usize = 15;

/// A node and how close it is to what is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Near {
    pub closeness: f32,
    pub node: u32,
}

impl Eq for Near {}
impl Ord for Near {
    /// Closer is greater; of equally close ones the older slot.
    fn cmp(&self, other: &Self) -> Ordering {
        self.closeness.total_cmp(&other.closeness).then(other.node.cmp(&self.node))
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
        if self.wants(near.closeness) {
            self.heap.push(Reverse(near));
            if self.heap.len() > self.most {
                self.heap.pop();
            }
        }
    }
    /// Whether something so close would be kept.
    pub fn wants(&self, closeness: f32) -> bool {
        self.heap.len() < self.most || self.heap.peek().is_none_or(|worst| closeness > worst.0.closeness)
    }
    /// Closest first.
    pub fn into_sorted(self) -> Vec<Near> {
        self.heap.into_sorted_vec().into_iter().map(|Reverse(near)| near).collect()
    }
}

/// A set of nodes.
#[derive(Debug)]
pub(crate) struct Nodes(Vec<u64>);

impl Nodes {
    pub fn none_of(nodes: usize) -> Self {
        Self(vec![0; nodes.div_ceil(64)])
    }
    /// Adds a node; whether it was not in.
    pub fn add(&mut self, node: u32) -> bool {
        let (word, bit) = (node as usize / 64, 1 << (node % 64));
        let fresh = self.0[word] & bit == 0;
        self.0[word] |= bit;
        fresh
    }
    pub fn has(&self, node: u32) -> bool {
        self.0.get(node as usize / 64).is_some_and(|word| word & (1 << (node % 64)) != 0)
    }
}

#[derive(Debug)]
pub(crate) struct Graph {
    /// Links of a node on each level above the lowest, where there are twice as many.
    links: usize,
    build_candidates: usize,
    /// `[nodes, 2 * links]`, of which `lowest_used` are set.
    lowest: Vec<u32>,
    lowest_used: Vec<u8>,
    /// By node: its links on level 1, 2 and so on.
    upper: Vec<Vec<Vec<u32>>>,
    held: Vec<bool>,
    entry: Option<u32>,
    len: usize,
}

impl Graph {
    /// `links`: 2 to 64.
    pub fn new(links: usize, build_candidates: usize) -> Self {
        Self {
            links: links.clamp(2, 64),
            build_candidates: build_candidates.max(links),
            lowest: Vec::new(),
            lowest_used: Vec::new(),
            upper: Vec::new(),
            held: Vec::new(),
            entry: None,
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The closest nodes that `accept` lets through, best first, at most `candidates`.
    pub fn search(&self, candidates: usize, closeness: impl Fn(u32) -> f32, accept: impl Fn(u32) -> bool) -> Vec<Near> {
        let Some(entry) = self.entry else { return Vec::new() };
        let start = self.descend(entry, 0, &closeness);
        self.search_level(&[start], candidates, 0, &closeness, &accept)
    }

    /// Adds a node. `between` is the closeness of two nodes.
    pub fn insert(&mut self, node: u32, between: impl Fn(u32, u32) -> f32) {
        self.make_room(node);
        let level = self.draw_level(node);
        self.upper[node as usize] = vec![Vec::new(); level];
        self.held[node as usize] = true;
        self.len += 1;
        let Some(entry) = self.entry else {
            self.entry = Some(node);
            return;
        };
        let top = self.level(entry);
        let closeness = |other: u32| between(node, other);
        let mut found = vec![self.descend(entry, level, &closeness)];
        for level in (0..=level.min(top)).rev() {
            found = self.search_level(&found, self.build_candidates, level, &closeness, &|_| true);
            let chosen = choose(&found, self.links, &between);
            for &near in &chosen {
                self.link(near.node, Near { node, ..near }, level, &between);
            }
            self.set_links(node, level, &chosen);
        }
        if level > top {
            self.entry = Some(node);
        }
    }

    /// Removes nodes; those that linked to them link to what they linked to instead.
    pub fn remove(&mut self, nodes: &[u32], between: impl Fn(u32, u32) -> f32) {
        let mut gone = Nodes::none_of(self.held.len());
        for &node in nodes {
            if self.held.get(node as usize).is_some_and(|held| *held) && gone.add(node) {
                self.len -= 1;
            }
        }
        for node in 0..self.held.len() as u32 {
            if !self.held[node as usize] || gone.has(node) {
                continue;
            }
            for level in 0..=self.level(node) {
                if self.links_of(node, level).iter().any(|n| gone.has(*n)) {
                    let chosen = self.without(node, level, &gone, &between);
                    self.set_links(node, level, &chosen);
                }
            }
        }
        for &node in nodes.iter().filter(|n| gone.has(**n)) {
            self.held[node as usize] = false;
            self.lowest_used[node as usize] = 0;
            self.upper[node as usize] = Vec::new();
        }
        if self.entry.is_some_and(|entry| gone.has(entry)) {
            let held = (0..self.held.len() as u32).filter(|n| self.held[*n as usize]);
            self.entry = held.max_by_key(|n| (self.level(*n), Reverse(*n)));
        }
    }

    /// A node's links once the nodes of `gone` are: its own, and those of the links that go.
    fn without(&self, node: u32, level: usize, gone: &Nodes, between: &impl Fn(u32, u32) -> f32) -> Vec<Near> {
        let own = self.links_of(node, level);
        let inherited = own.iter().filter(|n| gone.has(**n)).flat_map(|n| self.links_of(*n, level));
        let mut seen = Nodes::none_of(self.held.len());
        let mut pool: Vec<Near> = Vec::new();
        for &other in own.iter().chain(inherited) {
            if other != node && !gone.has(other) && seen.add(other) {
                pool.push(Near { node: other, closeness: between(node, other) });
            }
        }
        pool.sort_unstable_by(|a, b| b.cmp(a));
        choose(&pool, self.most_links(level), between)
    }

    fn make_room(&mut self, node: u32) {
        let nodes = self.held.len().max(node as usize + 1);
        self.lowest.resize(nodes * self.most_links(0), 0);
        self.lowest_used.resize(nodes, 0);
        self.upper.resize(nodes, Vec::new());
        self.held.resize(nodes, false);
    }

    /// Geometric in the number of links, and the same for a node in every run (splitmix64).
    fn draw_level(&self, node: u32) -> usize {
        let mut x = (u64::from(node) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        let level = -uniform.max(f64::MIN_POSITIVE).ln() / (self.links as f64).ln();
        (level as usize).min(MAX_LEVEL)
    }

    fn level(&self, node: u32) -> usize {
        self.upper[node as usize].len()
    }

    fn most_links(&self, level: usize) -> usize {
        if level == 0 { 2 * self.links } else { self.links }
    }

    fn links_of(&self, node: u32, level: usize) -> &[u32] {
        if level > 0 {
            return self.upper[node as usize].get(level - 1).map_or(&[], Vec::as_slice);
        }
        let start = node as usize * self.most_links(0);
        &self.lowest[start..start + usize::from(self.lowest_used[node as usize])]
    }

    fn set_links(&mut self, node: u32, level: usize, chosen: &[Near]) {
        let nodes = chosen.iter().map(|near| near.node);
        if level > 0 {
            if let Some(links) = self.upper[node as usize].get_mut(level - 1) {
                links.clear();
                links.extend(nodes);
            }
            return;
        }
        let start = node as usize * self.most_links(0);
        for (place, other) in self.lowest[start..].iter_mut().zip(nodes) {
            *place = other;
        }
        self.lowest_used[node as usize] = chosen.len() as u8;
    }

    /// Links `from` to a node as well, and chooses anew where there is no room.
    fn link(&mut self, from: u32, to: Near, level: usize, between: &impl Fn(u32, u32) -> f32) {
        let (links, most) = (self.links_of(from, level), self.most_links(level));
        let mut pool: Vec<Near> = Vec::with_capacity(links.len() + 1);
        if links.len() < most {
            pool.extend(links.iter().map(|&node| Near { node, closeness: 0.0 }));
            pool.push(to);
            return self.set_links(from, level, &pool);
        }
        pool.extend(links.iter().map(|&node| Near { node, closeness: between(from, node) }));
        pool.push(to);
        pool.sort_unstable_by(|a, b| b.cmp(a));
        let chosen = choose(&pool, most, between);
        self.set_links(from, level, &chosen);
    }

    /// From the entry down to just above `level`, always to the closest link.
    fn descend(&self, entry: u32, level: usize, closeness: &impl Fn(u32) -> f32) -> Near {
        let mut at = Near { node: entry, closeness: closeness(entry) };
        for level in (level + 1..=self.level(entry)).rev() {
            loop {
                let links = self.links_of(at.node, level).iter();
                let best = links.map(|&node| Near { node, closeness: closeness(node) }).max();
                match best {
                    Some(best) if best.closeness > at.closeness => at = best,
                    _ => break,
                }
            }
        }
        at
    }

    fn search_level(
        &self,
        starts: &[Near],
        candidates: usize,
        level: usize,
        closeness: &impl Fn(u32) -> f32,
        accept: &impl Fn(u32) -> bool,
    ) -> Vec<Near> {
        let mut seen = Nodes::none_of(self.held.len());
        let mut best = Best::new(candidates);
        let mut open = BinaryHeap::from(starts.to_vec());
        for &start in starts {
            seen.add(start.node);
            if accept(start.node) {
                best.add(start);
            }
        }
        while let Some(at) = open.pop() {
            if !best.wants(at.closeness) {
                break;
            }
            for &node in self.links_of(at.node, level) {
                if !seen.add(node) {
                    continue;
                }
                let near = Near { node, closeness: closeness(node) };
                if best.wants(near.closeness) {
                    open.push(near);
                    if accept(node) {
                        best.add(near);
                    }
                }
            }
        }
        best.into_sorted()
    }
}

/// Of nodes sorted by closeness to a base, those that are closer to the base than to any chosen before, at most `most`:
/// links that lead into different directions (the paper's algorithm 4). Room that is left goes to the closest others.
fn choose(sorted: &[Near], most: usize, between: &impl Fn(u32, u32) -> f32) -> Vec<Near> {
    let mut chosen: Vec<Near> = Vec::with_capacity(most);
    let mut others: Vec<Near> = Vec::new();
    for &near in sorted {
        if chosen.len() == most {
            return chosen;
        }
        if chosen.iter().all(|c| between(c.node, near.node) < near.closeness) {
            chosen.push(near);
        } else {
            others.push(near);
        }
    }
    let room = most - chosen.len();
    chosen.extend(others.into_iter().take(room));
    chosen
}

#[cfg(test)]
mod tests;

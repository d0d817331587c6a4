//! Edges between items: out of an item's own metadata, and kept by target so that they are found from there as well.
//!
//! `metadata.edges` is a list of `{"to": ID, "type": TEXT}`; an edge may lead to what is not there yet.

use crate::bank::{Bank, Kind, invalid};
use crate::records::{Live, Record, named};
use crate::search::Direction;
use crate::{digest, records};
use serde_json::Map;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use stockade_guest::prelude::*;
use stockade_guest::state::Write;

/// Most edges of one item.
const MAX_EDGES: usize = 64;
/// Most items that one query looks at.
const MAX_VISITED: usize = 2000;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edge {
    pub to: String,
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// The row that an edge has under its target.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Incoming {
    to: String,
    from: String,
    types: BTreeSet<String>,
}

/// The edges that an item says it has.
pub fn edges(metadata: &Map<String, Value>) -> Result<Vec<Edge>> {
    let Some(edges) = metadata.get("edges") else { return Ok(Vec::new()) };
    let edges: Vec<Edge> = serde_json::from_value(edges.clone()).map_err(|e| invalid("metadata.edges", e))?;
    if edges.len() > MAX_EDGES {
        return Err(Error::TooLarge(format!("metadata.edges: at most {MAX_EDGES}")));
    }
    edges.iter().try_for_each(|edge| named("metadata.edges.to", &edge.to, records::MAX_ID_BYTES))?;
    Ok(edges)
}

/// Writes the rows by which the edges of new records are found from their targets.
pub fn link(bank: &Bank, new: &BTreeMap<String, Record>) -> Result<()> {
    if bank.settings.kind != Kind::Graph {
        return Ok(());
    }
    let mut writes = Vec::new();
    for (from, record) in new {
        for (to, types) in by_target(&record.metadata)? {
            let key = key(bank, &to, from);
            writes.push(Write::set_json(key, &Incoming { to, from: from.clone(), types })?);
        }
    }
    bank.bucket.write_all(&writes)
}

/// The removal of the rows of edges that an item had and has no more.
pub fn unlink(
    bank: &Bank,
    from: &str,
    old: &Map<String, Value>,
    new: Option<&Map<String, Value>>,
) -> Result<Vec<Write>> {
    if bank.settings.kind != Kind::Graph {
        return Ok(Vec::new());
    }
    let kept = new.map(by_target).transpose()?.unwrap_or_default();
    let gone = by_target(old)?.into_keys().filter(|to| !kept.contains_key(to));
    Ok(gone.map(|to| Write::delete(key(bank, &to, from))).collect())
}

fn by_target(metadata: &Map<String, Value>) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut targets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for edge in edges(metadata)? {
        targets.entry(edge.to).or_default().insert(edge.kind);
    }
    Ok(targets)
}

fn key(bank: &Bank, to: &str, from: &str) -> String {
    format!("edge/{}/{}/{from}", bank.name, &digest(&[to.as_bytes()])[..16])
}

/// What leads on from where.
pub struct Walk {
    pub depth: u32,
    /// Edges of these types only; all where there are none.
    pub types: Vec<String>,
    pub direction: Direction,
}

/// Items around the starts, nearest first, with their distance in edges; the starts themselves have 0.
pub fn around(bank: &Bank, live: &mut Live, starts: Vec<String>, walk: &Walk) -> Result<Vec<(String, Record, u32)>> {
    let mut seen: BTreeSet<String> = starts.iter().cloned().collect();
    let mut open: VecDeque<(String, u32)> = starts.into_iter().map(|id| (id, 0)).collect();
    let mut found = Vec::new();
    while let Some((id, distance)) = open.pop_front() {
        let Some(record) = live.get(&id)? else { continue };
        if distance < walk.depth {
            for next in neighbours(bank, &id, &record, walk)? {
                if seen.len() < MAX_VISITED && seen.insert(next.clone()) {
                    open.push_back((next, distance + 1));
                }
            }
        }
        found.push((id, record, distance));
    }
    Ok(found)
}

fn neighbours(bank: &Bank, id: &str, record: &Record, walk: &Walk) -> Result<Vec<String>> {
    let wanted = |kind: &String| walk.types.is_empty() || walk.types.contains(kind);
    let mut next = Vec::new();
    if matches!(walk.direction, Direction::Out | Direction::Both) {
        next.extend(edges(&record.metadata)?.into_iter().filter(|e| wanted(&e.kind)).map(|e| e.to));
    }
    if matches!(walk.direction, Direction::In | Direction::Both) {
        for entry in bank.bucket.scan_all(&key(bank, id, ""))? {
            let incoming: Incoming = serde_json::from_slice(&entry.value)?;
            if incoming.to == id && incoming.types.iter().any(wanted) {
                next.push(incoming.from);
            }
        }
    }
    Ok(next)
}

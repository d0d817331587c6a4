//! A query from its options to its hits.

use crate::bank::{Bank, Kind, invalid};
use crate::embedding::{self, EXPIRES};
use crate::fusion::{Ranker, fuse};
use crate::graph::{self, Walk};
use crate::records::{Live, Record, Version};
use crate::{chunking, keyword};
use serde_json::Map;
use std::collections::HashMap;
use stockade_guest::filter::Filter;
use stockade_guest::memory::{Hit, Query, SearchMode};
use stockade_guest::prelude::*;
use stockade_guest::system;

/// Longest text of a query.
const MAX_TEXT_BYTES: usize = 32 << 10;
/// Hits of each ranking that are fused, at least.
const FUSED: usize = 100;
/// Most that the index answers at once.
const MAX_NEIGHBOURS: usize = 1000;
/// Items of a graph that the query's words may start from.
const STARTS: usize = 3;
const MAX_DEPTH: u32 = 8;
/// Vectors without an item that one query removes.
const SWEEP: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Out,
    In,
    #[default]
    Both,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    ranker: Option<RankerName>,
    k: Option<f32>,
    alpha: Option<f32>,
    threshold: Option<f32>,
    max_tokens: Option<u32>,
    depth: Option<u32>,
    edge_types: Vec<String>,
    direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RankerName {
    Rrf,
    Weighted,
}

impl Options {
    fn ranker(&self) -> Result<Ranker> {
        let (k, alpha) = (self.k.unwrap_or(60.0), self.alpha.unwrap_or(0.5));
        if !(k.is_finite() && k >= 0.0) {
            return Err(invalid("options.k", "not negative"));
        }
        if !(0.0..=1.0).contains(&alpha) {
            return Err(invalid("options.alpha", "0.0 to 1.0"));
        }
        Ok(match self.ranker {
            Some(RankerName::Weighted) => Ranker::Weighted { alpha },
            Some(RankerName::Rrf) | None => Ranker::Rrf { k },
        })
    }
}

/// A bank being searched.
struct Search<'a> {
    bank: &'a Bank,
    text: &'a str,
    filter: Option<Filter>,
    live: Live<'a>,
    /// Items that were found, by id.
    records: HashMap<String, Record>,
}

pub fn search(bank: &Bank, query: Query) -> Result<Vec<Hit>> {
    if query.text.len() > MAX_TEXT_BYTES {
        return Err(Error::TooLarge(format!("text: at most {MAX_TEXT_BYTES} bytes")));
    }
    let options: Options = match &query.options {
        Some(text) => {
            let fields: Map<String, Value> = serde_json::from_str(text).map_err(|e| invalid("options", e))?;
            serde_json::from_value(Value::Object(fields)).map_err(|e| invalid("options", e))?
        }
        None => Options::default(),
    };
    let filter = query.filter.as_deref().map(|text| {
        let json: Value = serde_json::from_str(text).map_err(|e| invalid("filter", e))?;
        Filter::parse(&json).map(|filter| (json, filter)).map_err(|e| invalid("filter", e))
    });
    let (json, filter) = filter.transpose()?.unzip();
    let limit = query.limit as usize;
    let live = Live::new(bank);
    let mut search = Search { bank, text: &query.text, filter, live, records: HashMap::new() };
    let mode = mode(bank.settings.kind, query.mode)?;
    let ranked = match mode {
        Mode::Keyvalue => search.by_key(limit)?,
        Mode::Graph => search.around(&options, limit)?,
        Mode::Keyword => named("keyword", search.by_words(limit)?),
        Mode::Vector => named("vector", search.by_meaning(limit, json.as_ref())?),
        Mode::Hybrid => {
            let ranker = options.ranker()?;
            let depth = FUSED.max(limit);
            let (meaning, words) = (search.by_meaning(depth, json.as_ref())?, search.by_words(depth)?);
            let fused = fuse([&meaning, &words], ranker).into_iter();
            let names = |signals: [Option<f32>; 2]| {
                let named = ["vector", "keyword"].into_iter().zip(signals);
                named.filter_map(|(name, score)| Some((name.to_string(), score?))).collect()
            };
            fused.map(|f| (f.id, f.score, names(f.signals))).collect()
        }
    };
    Ok(search.hits(ranked, limit, &options))
}

enum Mode {
    Vector,
    Keyword,
    Hybrid,
    Keyvalue,
    Graph,
}

fn mode(kind: Kind, asked: Option<SearchMode>) -> Result<Mode> {
    let refused = |what: &str| Err(invalid("mode", format!("this bank has no {what}")));
    match (asked, kind) {
        (None, Kind::Keyvalue) => Ok(Mode::Keyvalue),
        (None | Some(SearchMode::Graph), Kind::Graph) => Ok(Mode::Graph),
        (Some(SearchMode::Graph), _) => refused("edges"),
        (None, Kind::Vector) => Ok(Mode::Vector),
        (None, Kind::Keyword) => Ok(Mode::Keyword),
        (None | Some(SearchMode::Hybrid), Kind::Hybrid) => Ok(Mode::Hybrid),
        (Some(SearchMode::Vector), kind) if kind.has_vectors() => Ok(Mode::Vector),
        (Some(SearchMode::Keyword), kind) if kind.has_words() => Ok(Mode::Keyword),
        (Some(SearchMode::Vector | SearchMode::Hybrid), _) => refused("vectors"),
        (Some(SearchMode::Keyword), _) => refused("words"),
    }
}

/// An id, its score and what that is made of.
type Ranked = (String, f32, Vec<(String, f32)>);

fn named(signal: &str, ranking: Vec<(String, f32)>) -> Vec<Ranked> {
    ranking.into_iter().map(|(id, score)| (id, score, vec![(signal.to_string(), score)])).collect()
}

impl Search<'_> {
    /// Whether the item counts as it was written then and passes the filter; keeps its record.
    fn takes(&mut self, id: &str, version: Version) -> Result<Taken> {
        if let Some(known) = self.records.get(id) {
            return Ok(if known.version == version { Taken::Yes } else { Taken::Gone });
        }
        match self.live.get(id)? {
            Some(record) if record.version == version => {
                if !passes(&self.filter, &record.metadata) {
                    return Ok(Taken::No);
                }
                self.records.insert(id.to_string(), record);
                Ok(Taken::Yes)
            }
            _ => Ok(Taken::Gone),
        }
    }

    fn by_words(&mut self, limit: usize) -> Result<Vec<(String, f32)>> {
        let mut taken = Vec::new();
        for (id, version, score) in keyword::ranked(self.bank, self.text)? {
            if taken.len() == limit {
                break;
            }
            if matches!(self.takes(&id, version)?, Taken::Yes) {
                taken.push((id, score));
            }
        }
        Ok(taken)
    }

    /// Asks for more while too much of what is found does not count.
    fn by_meaning(&mut self, limit: usize, filter: Option<&Value>) -> Result<Vec<(String, f32)>> {
        if self.text.trim().is_empty() {
            return Err(invalid("text", "empty: there is no meaning to look for"));
        }
        // Expired items are left out in the index, with the filter.
        let alive = json!({"type": "gt", "key": EXPIRES, "value": system::now()});
        let filter = match filter {
            Some(filter) => json!({"type": "and", "filters": [filter, alive]}),
            None => alive,
        };
        let mut ask = (limit + limit / 4 + 8).min(MAX_NEIGHBOURS);
        loop {
            let found = embedding::nearest(self.bank, self.text, ask as u32, Some(filter.to_string()))?;
            let all = found.len() < ask;
            let (mut taken, mut gone) = (Vec::new(), Vec::new());
            for (id, version, score) in found {
                match self.takes(&id, version)? {
                    Taken::Yes => taken.push((id, score)),
                    Taken::Gone if version.is_settled() && gone.len() < SWEEP => gone.push((id, version)),
                    Taken::Gone | Taken::No => {}
                }
            }
            embedding::remove(self.bank, gone.iter().map(|(id, version)| (id.as_str(), *version)))?;
            if taken.len() >= limit || all || ask == MAX_NEIGHBOURS {
                taken.truncate(limit);
                return Ok(taken);
            }
            ask = (ask * 4).min(MAX_NEIGHBOURS);
        }
    }

    /// The id itself, and ids that begin with it.
    fn by_key(&mut self, limit: usize) -> Result<Vec<Ranked>> {
        let base = self.bank.item_key("");
        let prefix = self.bank.item_key(self.text);
        let (mut found, mut after) = (Vec::new(), None);
        while found.len() < limit {
            let page = self.bank.bucket.scan(&prefix, after.as_deref(), 1000)?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            for entry in page {
                let id = entry.key[base.len()..].to_string();
                let record: Record = serde_json::from_slice(&entry.value)?;
                if passes(&self.filter, &record.metadata) && self.live.counts(&id, &record)? {
                    let score = self.text.len() as f32 / id.len().max(1) as f32;
                    self.records.insert(id.clone(), record);
                    found.push((id, score, vec![("key".to_string(), score)]));
                }
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    fn around(&mut self, options: &Options, limit: usize) -> Result<Vec<Ranked>> {
        let depth = options.depth.unwrap_or(1);
        if depth > MAX_DEPTH {
            return Err(invalid("options.depth", format!("at most {MAX_DEPTH}")));
        }
        let starts = match self.live.get(self.text)? {
            Some(_) => vec![self.text.to_string()],
            None => {
                // The filter is for what is found, not for where the way begins.
                let filter = self.filter.take();
                let starts = self.by_words(STARTS)?.into_iter().map(|(id, _)| id).collect();
                self.filter = filter;
                starts
            }
        };
        let walk = Walk { depth, types: options.edge_types.clone(), direction: options.direction };
        let mut found = Vec::new();
        for (id, record, distance) in graph::around(self.bank, &mut self.live, starts, &walk)? {
            if found.len() < limit && passes(&self.filter, &record.metadata) {
                self.records.insert(id.clone(), record);
                let score = 1.0 / (1.0 + distance as f32);
                found.push((id, score, vec![("distance".to_string(), distance as f32)]));
            }
        }
        Ok(found)
    }

    /// The best of a ranking, within threshold and token budget, each text once.
    fn hits(mut self, ranked: Vec<Ranked>, limit: usize, options: &Options) -> Vec<Hit> {
        let mut texts: Vec<String> = Vec::new();
        let mut tokens = 0;
        let mut hits = Vec::new();
        for (id, score, signals) in ranked {
            if hits.len() == limit || options.threshold.is_some_and(|least| score < least) {
                break;
            }
            let Some(record) = self.records.remove(&id) else { continue };
            if texts.contains(&record.text) {
                continue;
            }
            tokens += chunking::estimate(&record.text);
            if options.max_tokens.is_some_and(|most| tokens > most) {
                break;
            }
            texts.push(record.text.clone());
            hits.push(Hit { item: record.into_item(id), score, signals });
        }
        hits
    }
}

enum Taken {
    Yes,
    /// It does not pass the filter.
    No,
    /// The item is not, or not as it was then.
    Gone,
}

fn passes(filter: &Option<Filter>, metadata: &Map<String, Value>) -> bool {
    filter.as_ref().is_none_or(|f| f.matches(metadata))
}

//! A search over several memory banks.

use crate::steps::cut;
use std::collections::HashSet;
use stockade_guest::memories::{self, Hit, Query, SearchMode};
use stockade_guest::prelude::*;

/// Most hits that a bank is asked for.
const MAX_HITS: u32 = 1000;

/// How banks are searched.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Vector,
    Keyword,
    Hybrid,
    Graph,
}

impl From<Mode> for SearchMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Vector => Self::Vector,
            Mode::Keyword => Self::Keyword,
            Mode::Hybrid => Self::Hybrid,
            Mode::Graph => Self::Graph,
        }
    }
}

/// What is searched, and how much of it is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    pub banks: &'a [String],
    /// Most hits, at least 1.
    pub limit: u32,
    /// What the metadata has to fulfil, in the memory's form.
    pub filter: Option<&'a serde_json::Map<String, Value>>,
    /// How the banks are searched; `None`: as each is meant to be.
    pub mode: Option<Mode>,
    /// The memory's own options of a query: `ranker`, `k`, `alpha`, `threshold`.
    pub options: &'a serde_json::Map<String, Value>,
    /// Most tokens of all hits together.
    pub most_tokens: u32,
}

impl Search<'_> {
    /// The best of all banks, each with its bank. Scores of different banks cannot be compared, so the banks take turns by
    /// rank; a text that was found twice counts once. A text is searched by its first 8000 bytes, which is more than is
    /// embedded. Hits beyond the tokens are left out, the first one is cut to them.
    pub fn run(&self, model: &str, text: &str) -> Result<Vec<(String, Hit)>> {
        self.run_without(model, text, 0, &|_| false)
    }

    /// As [`Search::run`], without those that are known already, of which there may be `spare`.
    pub fn run_without(
        &self,
        model: &str,
        text: &str,
        spare: usize,
        known: &dyn Fn(&Hit) -> bool,
    ) -> Result<Vec<(String, Hit)>> {
        let options = (!self.options.is_empty()).then(|| serde_json::to_string(self.options)).transpose()?;
        let filter = self.filter.map(serde_json::to_string).transpose()?;
        let limit = self.limit.saturating_add(u32::try_from(spare).unwrap_or(MAX_HITS)).min(MAX_HITS);
        let query = Query { filter, mode: self.mode.map(SearchMode::from), options, ..Query::new(cut(text), limit) };
        let mut found: Vec<(&String, std::vec::IntoIter<Hit>)> = Vec::new();
        for bank in self.banks {
            found.push((bank, memories::search(bank, &query)?.into_iter()));
        }
        let mut ranked: Vec<(&String, Hit)> = Vec::new();
        loop {
            let before = ranked.len();
            for (bank, hits) in &mut found {
                ranked.extend(hits.next().map(|hit| (*bank, hit)));
            }
            if ranked.len() == before {
                break;
            }
        }
        let mut seen = HashSet::new();
        ranked.retain(|(_, hit)| !known(hit) && seen.insert(hit.item.text.clone()));
        ranked.truncate(self.limit as usize);
        self.within_tokens(model, ranked)
    }

    fn within_tokens(&self, model: &str, ranked: Vec<(&String, Hit)>) -> Result<Vec<(String, Hit)>> {
        let mut left = self.most_tokens as usize;
        let mut kept = Vec::with_capacity(ranked.len());
        for (bank, mut hit) in ranked {
            let tokens = inference::tokenize(model, &hit.item.text)?;
            if tokens.len() > left && !kept.is_empty() {
                break;
            }
            if tokens.len() > left {
                let text = inference::detokenize(model, &tokens[..left])?;
                hit.item.text = text.trim_end_matches('\u{fffd}').to_string() + " ...";
            }
            left = left.saturating_sub(tokens.len());
            kept.push((bank.clone(), hit));
        }
        Ok(kept)
    }
}

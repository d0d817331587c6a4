//! Which rows are held out: by a hash of what they are about, so that no row has its like on the other side.

use crate::job::DataSpec;
use crate::random::{Purpose, uniform};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Columns that say what a row is about: rows that share one belong together. Else the whole row does.
const SUBJECTS: [&str; 3] = ["prompt", "anchor", "text"];

/// Whether the row is held out for evaluation.
pub fn held_out(row: &Value, spec: &DataSpec, seed: u64) -> bool {
    if spec.eval_split <= 0.0 {
        return false;
    }
    let column = |name: &str| row.get(name).filter(|value| !value.is_null());
    let own = |name: &str| column(spec.columns.get(name).map_or(name, String::as_str));
    let subject = match &spec.group {
        Some(group) => column(group),
        None => SUBJECTS.iter().find_map(|name| own(name)),
    };
    let digest = Sha256::digest(subject.unwrap_or(row).to_string());
    let word = |at: usize| digest[at..at + 8].iter().fold(0u64, |word, &byte| word << 8 | u64::from(byte));
    uniform(seed, Purpose::Split, word(0), word(8)) < spec.eval_split
}

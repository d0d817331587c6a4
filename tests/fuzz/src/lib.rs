//! Fuzz targets: one for each parser of bytes that a client, a guest, a model file or a damaged disk may have made.
//!
//! A target takes any bytes and panics when a promise is broken: no panic below it, no answer that blames the host for
//! its input, no different answer for the same input cut differently. [`TARGETS`] is the list, [`run`] the way in, and
//! [`mutate`] a small deterministic mutator for machines without libFuzzer.

mod fixtures;
pub mod mutate;
mod targets;

/// One parser under test.
pub struct Target {
    pub name: &'static str,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Sound inputs to begin from: from the reference files where those are, and some that need none.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Fragments that the format gives a meaning to.
    pub words: &'static [&'static str],
}

pub static TARGETS: &[Target] = &[
    targets::model::GGUF,
    targets::model::SAFETENSORS,
    targets::model::SHARDS,
    targets::model::CONFIG,
    targets::model::TOKENIZER,
    targets::model::TEMPLATE,
    targets::model::ARCHIVE,
    targets::adapter::ADAPTER,
    targets::state::SEGMENT,
    targets::state::SNAPSHOT,
    targets::upload::GATE,
    targets::reply::REPLY,
    targets::reply::GRAMMAR,
    targets::http::URL,
    targets::http::REQUEST,
    targets::http::FORM,
    targets::training::JOB,
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// One input through the target of this name.
///
/// # Panics
/// When a promise is broken, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = target(name).unwrap_or_else(|| panic!("no fuzz target `{name}`"));
    (target.run)(bytes);
}

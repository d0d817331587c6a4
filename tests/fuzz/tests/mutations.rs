//! Every fuzz target on sound inputs and on seeded mutations of them, for some seconds each (`STOCKADE_FUZZ_SECONDS`).
//!
//! A failing input is kept under the build's temporary folder (as `NAME.running` if it ended the process), and `STOCKADE_FUZZ_INPUT=FILE` with the test's name runs it
//! again.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use stockade_fuzz::mutate::{Draw, mutate};
use stockade_fuzz::{Target, target};

const SECONDS: &str = "STOCKADE_FUZZ_SECONDS";
const INPUT: &str = "STOCKADE_FUZZ_INPUT";
/// Inputs that a slow machine tries too, so that no run passes by doing nothing.
const LEAST: u64 = 50;
/// Longest that one input may take on a busy machine.
const LONGEST: Duration = Duration::from_secs(20);

fn fuzz(name: &str) {
    let target = target(name).expect("a target of this name");
    if let Some(path) = std::env::var_os(INPUT) {
        return (target.run)(&std::fs::read(path).expect("the input"));
    }
    let seconds = std::env::var(SECONDS).ok().and_then(|s| s.parse().ok()).unwrap_or(3.0);
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    seeds.iter().for_each(|seed| try_one(target, seed));
    let mut draw = Draw::new(name.bytes().fold(1u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())));
    let (start, mut tried) = (Instant::now(), 0);
    while tried < LEAST || start.elapsed() < Duration::from_secs_f64(seconds) {
        try_one(target, &mutate(target, &seeds, &mut draw));
        tried += 1;
    }
    println!("{name}: {} seeds, {tried} mutations", seeds.len());
}

fn try_one(target: &Target, input: &[u8]) {
    // Before the run: what ends the process (a stack that is full) leaves no other trace.
    let running = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.running", target.name));
    std::fs::write(&running, input).expect("the input is kept");
    let start = Instant::now();
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    let took = start.elapsed();
    if outcome.is_ok() && took < LONGEST {
        return;
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{}.input", target.name, input.len()));
    std::fs::write(&path, input).expect("the input is kept");
    panic!("{} breaks its promise after {took:?}: {INPUT}={}", target.name, path.display());
}

macro_rules! targets {
    ($($test:ident => $name:literal,)*) => {
        $(#[test]
        fn $test() {
            fuzz($name);
        })*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$($name),*];
            let known: Vec<_> = stockade_fuzz::TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(known, tested);
        }
    };
}

targets! {
    gguf_files => "gguf",
    safetensors_files => "safetensors",
    indexes_of_shards => "shards",
    model_configurations => "config",
    tokenizer_files => "tokenizer",
    chat_templates => "template",
    model_archives => "archive",
    adapters => "adapter",
    journal_segments => "journal-segment",
    journal_snapshots => "journal-snapshot",
    uploads => "upload",
    replies_of_models => "reply",
    grammars_of_clients => "grammar",
    urls_of_guests => "url",
    requests_of_clients => "request",
    forms_of_clients => "form",
    job_files => "job",
}

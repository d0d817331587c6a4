//! What a block of code costs natively: a whole check with nothing prepared, as in a fresh instance.
//!
//! ```text
//! cargo run --release --manifest-path components/Cargo.toml --target-dir target/guests -p code-shield --example bench -- FILE.jsonl..
//! ```
//!
//! Each line of a file has `code` and perhaps `language`. For each file: time a block, and how many blocks are found
//! insecure. The same in the sandbox: `bench_runtime` of the host, with `--code`.

use code_shield::CodeShield;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use stockade_guest::shield::Verdict;
use stockade_guest::testing::check;

/// Each block's time is the shortest of so many, against the noise of a busy machine.
const ROUNDS: usize = 20;

fn main() {
    for file in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
        let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect();
        let (mut times, mut bytes, mut found) = (Vec::new(), 0, 0);
        for row in &rows {
            let field = |name: &str| row[name].as_str().unwrap_or_default();
            let block = format!("Here it is:\n\n```{}\n{}\n```\n", field("language"), field("code"));
            bytes += block.len();
            let mut best = Duration::MAX;
            let mut insecure = false;
            for _ in 0..ROUNDS {
                let began = Instant::now();
                let verdict = check::<CodeShield>(json!({}), &block).expect("a verdict");
                best = best.min(began.elapsed());
                insecure = matches!(verdict, Verdict::Block(_));
            }
            times.push(best);
            found += usize::from(insecure);
        }
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        println!(
            "{file}: {} blocks of {} bytes on average, {found} insecure; p50 {:.0}  p95 {:.0}  p99 {:.0}  max {:.0} us",
            rows.len(),
            bytes / rows.len(),
            at(0.5),
            at(0.95),
            at(0.99),
            at(1.0)
        );
    }
}

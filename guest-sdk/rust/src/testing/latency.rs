//! What a plugin's logic costs natively, for the host's `bench_components` to set beside the same in the sandbox.

use std::time::Instant;

/// How many calls are timed; once each without it, so that a test run shows that they work.
const CALLS: &str = "STOCKADE_LATENCY_CALLS";

/// Calls `call` and, where [`CALLS`] asks for a measurement, prints a line of JSON: its name, microseconds of wall time (p50, p99)
/// and of processor time (mean).
pub fn latency<T>(name: &str, mut call: impl FnMut() -> T) {
    let calls: usize = std::env::var(CALLS).ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    call();
    if calls == 0 {
        return;
    }
    let before = processor_us();
    let time = |_| {
        let began = Instant::now();
        std::hint::black_box(call());
        began.elapsed().as_secs_f64() * 1e6
    };
    let mut times: Vec<f64> = (0..calls).map(time).collect();
    let processor = (processor_us() - before) / calls as f64;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((calls - 1) as f64 * share) as usize];
    println!(r#"{{"latency":"{name}","p50_us":{:.2},"p99_us":{:.2},"cpu_us":{processor:.2}}}"#, at(0.5), at(0.99));
}

/// Of this thread; 0 where the system does not tell.
fn processor_us() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = told.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    nanoseconds.unwrap_or(0.0) / 1e3
}

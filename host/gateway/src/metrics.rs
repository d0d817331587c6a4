//! Counters of the gateway in Prometheus' text form.
//!
//! Label values come from routes, status codes and bound component names, so their number is bounded; over
//! [`MAX_SERIES`] new ones count under `other`.

use crate::app::App;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use stockade_core::event::Usage;
use stockade_core::plugin::{ComponentMetric, MetricKind};

const MAX_SERIES: usize = 2000;
/// Upper bounds of the duration buckets in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

#[derive(Debug, Default)]
pub struct Metrics {
    /// By method, route and status.
    requests: Mutex<BTreeMap<(String, String, u16), u64>>,
    /// By component and outcome.
    calls: Mutex<BTreeMap<(String, String), u64>>,
    durations: [AtomicU64; BUCKETS.len() + 1],
    duration_us: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
}

impl Metrics {
    /// A request's head is answered.
    pub fn request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let key = (method.to_owned(), route.to_owned(), status);
        bump(&self.requests, key, || ("other".into(), "other".into(), 0));
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|b| seconds <= *b);
        self.durations[bucket.unwrap_or(BUCKETS.len())].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.duration_us.fetch_add(us, Ordering::Relaxed);
    }

    pub fn component_call(&self, component: &str, outcome: &str) {
        let key = (component.to_owned(), outcome.to_owned());
        bump(&self.calls, key, || ("other".into(), "other".into()));
    }

    pub fn tokens(&self, usage: Usage) {
        let add = |c: &AtomicU64, n: u32| c.fetch_add(n.into(), Ordering::Relaxed);
        add(&self.prompt_tokens, usage.prompt_tokens);
        add(&self.completion_tokens, usage.completion_tokens);
    }

    /// Everything as text, gauges of the engine included.
    pub fn render(&self, app: &App) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut out, app);
        out
    }

    fn write(&self, out: &mut String, app: &App) -> std::fmt::Result {
        let load = app.inference.load();
        for (name, help, value) in [
            ("stockade_sequences_running", "Sequences being decoded", u64::from(load.sequences_running)),
            ("stockade_sequences_waiting", "Sequences queued", load.sequences_waiting.into()),
            ("stockade_kv_pages_used", "KV cache pages in use", load.kv_pages_used.into()),
            ("stockade_kv_pages_total", "KV cache pages", load.kv_pages_total.into()),
            ("stockade_requests_running", "Inference requests being answered", app.admission.running() as u64),
            ("stockade_ready", "1 while requests are taken", app.readiness.is_ready().into()),
        ] {
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}")?;
        }
        counter(out, "stockade_requests_total", "Requests by route and status")?;
        for ((method, route, status), n) in self.requests.lock().iter() {
            writeln!(out, "stockade_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} {n}")?;
        }
        counter(out, "stockade_component_calls_total", "Component calls by outcome")?;
        for ((component, outcome), n) in self.calls.lock().iter() {
            writeln!(out, "stockade_component_calls_total{{component=\"{component}\",outcome=\"{outcome}\"}} {n}")?;
        }
        self.write_components(out, &app.plugins.metrics())?;
        counter(out, "stockade_tokens_total", "Tokens of all requests")?;
        for (kind, n) in [("prompt", &self.prompt_tokens), ("completion", &self.completion_tokens)] {
            let n = n.load(Ordering::Relaxed);
            writeln!(out, "stockade_tokens_total{{kind=\"{kind}\"}} {n}")?;
        }
        counter(out, "stockade_traces_dropped_total", "Traces that the store could not take")?;
        writeln!(out, "stockade_traces_dropped_total {}", app.recorder.dropped())?;
        self.write_durations(out)
    }

    /// What components count and observe; their names hold no character that needs quoting.
    fn write_components(&self, out: &mut String, series: &[ComponentMetric]) -> std::fmt::Result {
        let of = |kind: MetricKind| series.iter().filter(move |s| s.kind == kind);
        counter(out, "stockade_component_counts_total", "Counters that components keep")?;
        for ComponentMetric { component, name, sum, .. } in of(MetricKind::Count) {
            writeln!(out, "stockade_component_counts_total{{component=\"{component}\",name=\"{name}\"}} {sum}")?;
        }
        let summary = "stockade_component_values";
        writeln!(out, "# HELP {summary} Distributions that components keep\n# TYPE {summary} summary")?;
        for ComponentMetric { component, name, sum, values, .. } in of(MetricKind::Observe) {
            writeln!(out, "{summary}_sum{{component=\"{component}\",name=\"{name}\"}} {sum}")?;
            writeln!(out, "{summary}_count{{component=\"{component}\",name=\"{name}\"}} {values}")?;
        }
        Ok(())
    }

    fn write_durations(&self, out: &mut String) -> std::fmt::Result {
        let name = "stockade_request_seconds";
        writeln!(out, "# HELP {name} Time to the reply's head\n# TYPE {name} histogram")?;
        let mut sum = 0u64;
        for (i, counter) in self.durations.iter().enumerate() {
            sum += counter.load(Ordering::Relaxed);
            match BUCKETS.get(i) {
                Some(le) => writeln!(out, "{name}_bucket{{le=\"{le}\"}} {sum}")?,
                None => writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {sum}")?,
            }
        }
        let seconds = self.duration_us.load(Ordering::Relaxed) as f64 / 1e6;
        writeln!(out, "{name}_sum {seconds}\n{name}_count {sum}")
    }
}

fn counter(out: &mut String, name: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter")
}

fn bump<K: Ord>(map: &Mutex<BTreeMap<K, u64>>, key: K, other: impl FnOnce() -> K) {
    let mut map = map.lock();
    let key = if map.len() < MAX_SERIES || map.contains_key(&key) { key } else { other() };
    *map.entry(key).or_default() += 1;
}

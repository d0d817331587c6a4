//! What components measure about themselves, for `/metrics`.
//!
//! Invariant: the number of series is bounded; further names are dropped, since components choose them.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use stockade_core::ComponentRef;
use stockade_core::plugin::{ComponentMetric, MetricKind};

/// Most series over all components.
const MAX_SERIES: usize = 2_000;
/// Longest name of a series in bytes.
const MAX_NAME_BYTES: usize = 64;

#[derive(Default)]
pub(crate) struct Metrics {
    series: Mutex<BTreeMap<Key, (f64, u64)>>,
}

/// Component, kind and name of a series.
type Key = (String, MetricKind, String);

impl Metrics {
    pub fn record(&self, component: &ComponentRef, kind: MetricKind, name: &str, value: f64) {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
            return;
        }
        let mut series = self.series.lock();
        let full = series.len() >= MAX_SERIES;
        let key = (component.to_string(), kind, name.to_string());
        if full && !series.contains_key(&key) {
            return;
        }
        let (sum, values) = series.entry(key).or_default();
        *sum += value;
        *values = values.saturating_add(1);
    }

    pub fn snapshot(&self) -> Vec<ComponentMetric> {
        let series = self.series.lock();
        let rows = series.iter().map(|((component, kind, name), (sum, values))| ComponentMetric {
            component: component.clone(),
            kind: *kind,
            name: name.clone(),
            sum: *sum,
            values: *values,
        });
        rows.collect()
    }
}

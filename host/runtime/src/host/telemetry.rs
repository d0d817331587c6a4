//! `telemetry`: logs and spans into the request's trace, measurements into the host's metrics.

use crate::bindings::telemetry::{Host, HostSpan, Level};
use crate::guest::{Guest, MAX_LOG_LINE_BYTES};
use std::collections::BTreeMap;
use std::time::Instant;
use stockade_core::plugin::{MetricKind, call_span};
use stockade_core::registry;
use wasmtime::component::Resource;

/// Most attributes of a span.
const MAX_ATTRIBUTES: usize = 16;
/// Longest name, key and value of a span in bytes.
const MAX_SPAN_TEXT_BYTES: usize = 256;

pub struct Span {
    name: String,
    /// Microseconds from the request's start.
    start_us: u64,
    began: Instant,
    attributes: BTreeMap<String, String>,
}

impl Host for Guest {
    fn log(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.meter.host_call()?;
        let level = match level {
            Level::Trace => "trace",
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let component = &self.context.call.target.component;
        self.meter.log(|| {
            let text = cut(&message, MAX_LOG_LINE_BYTES);
            tracing::debug!(target: "component", %component, level, "{text}");
            format!("{level}: {text}")
        })?;
        Ok(())
    }

    fn count(&mut self, name: String, delta: f64) -> wasmtime::Result<()> {
        self.measure(MetricKind::Count, &name, delta, delta.is_finite() && delta >= 0.0)
    }

    fn observe(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.measure(MetricKind::Observe, &name, value, value.is_finite())
    }
}

impl Guest {
    fn measure(&mut self, kind: MetricKind, name: &str, value: f64, valid: bool) -> wasmtime::Result<()> {
        self.meter.host_call()?;
        let component = &self.context.call.target.component;
        if valid {
            self.host.metrics.record(component, kind, name, value);
        }
        Ok(())
    }
}

impl HostSpan for Guest {
    fn new(&mut self, name: String) -> wasmtime::Result<Resource<Span>> {
        self.meter.host_call()?;
        let span = Span {
            name: cut(&name, MAX_SPAN_TEXT_BYTES).to_string(),
            start_us: self.context.call.trace.elapsed_us(),
            began: Instant::now(),
            attributes: BTreeMap::new(),
        };
        Ok(self.table.push(span)?)
    }

    fn set(&mut self, this: Resource<Span>, key: String, value: String) -> wasmtime::Result<()> {
        self.meter.host_call()?;
        let span = self.table.get_mut(&this)?;
        let key = cut(&key, MAX_SPAN_TEXT_BYTES);
        if span.attributes.len() < MAX_ATTRIBUTES || span.attributes.contains_key(key) {
            span.attributes.insert(key.into(), cut(&value, MAX_SPAN_TEXT_BYTES).into());
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<Span>) -> wasmtime::Result<()> {
        let span = self.table.delete(this)?;
        let target = &self.context.call.target;
        let component = &target.component;
        let duration_us = u64::try_from(span.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(target: "component", %component, span = span.name, duration_us, attributes = ?span.attributes);
        self.context.call.trace.record_span(registry::Span {
            name: span.name,
            start_us: span.start_us,
            duration_us,
            parent: Some(call_span(&target.role, &component.name, &component.version)),
            attributes: span.attributes,
        });
        Ok(())
    }
}

/// At most `bytes`, whole characters.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

//! `telemetry`: logs into the call's trace; spans and measurements into the host's own tracing.

use crate::bindings::telemetry::{Host, HostSpan, Level};
use crate::guest::{Guest, MAX_LOG_LINE_BYTES};
use std::time::Instant;
use stockade_core::plugin::MetricKind;
use wasmtime::component::Resource;

/// Most attributes of a span.
const MAX_ATTRIBUTES: usize = 16;

pub struct Span {
    name: String,
    began: Instant,
    attributes: Vec<(String, String)>,
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
            let text = cut(&message);
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
        let span = Span { name: cut(&name).to_string(), began: Instant::now(), attributes: Vec::new() };
        Ok(self.table.push(span)?)
    }

    fn set(&mut self, this: Resource<Span>, key: String, value: String) -> wasmtime::Result<()> {
        self.meter.host_call()?;
        let span = self.table.get_mut(&this)?;
        if span.attributes.len() < MAX_ATTRIBUTES {
            span.attributes.push((cut(&key).to_string(), cut(&value).to_string()));
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<Span>) -> wasmtime::Result<()> {
        let span = self.table.delete(this)?;
        let component = &self.context.call.target.component;
        tracing::debug!(
            target: "component",
            %component,
            span = span.name,
            duration_us = span.began.elapsed().as_micros() as u64,
            attributes = ?span.attributes,
        );
        Ok(())
    }
}

/// At most [`MAX_LOG_LINE_BYTES`], whole characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOG_LINE_BYTES)]
}

//! Log lines on stderr: text for people, JSON on demand.

use crate::failure::Failure;
use crate::settings::log;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

pub fn start(settings: &log) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|e| Failure::usage(format!("log.filter: {e}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if settings.format == "json" {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
    };
    started.map_err(|e| Failure::usage(format!("logging: {e}")))
}

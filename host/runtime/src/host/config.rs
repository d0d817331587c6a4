//! `config`: the binding's configuration.

use crate::bindings::config::Host;
use crate::guest::Guest;
use serde_json::Value;

impl Host for Guest {
    fn get(&mut self) -> wasmtime::Result<String> {
        self.meter.host_call()?;
        Ok(match &self.context.call.target.config {
            Value::Null => "{}".to_string(),
            config => config.to_string(),
        })
    }
}

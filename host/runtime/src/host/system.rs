//! `system`: time and randomness.

use crate::bindings::system::Host;
use crate::guest::Guest;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most random bytes a call.
const MAX_RANDOM_BYTES: u32 = 4096;

impl Host for Guest {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.meter.host_call()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(now.map_or(0, |d| d.as_millis() as u64))
    }

    fn random(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        self.meter.host_call()?;
        if length > MAX_RANDOM_BYTES {
            wasmtime::bail!("system.random: {length} bytes asked, {MAX_RANDOM_BYTES} are the most");
        }
        let mut bytes = vec![0; length as usize];
        getrandom::fill(&mut bytes).map_err(|e| wasmtime::format_err!("system.random: the system has none: {e}"))?;
        Ok(bytes)
    }
}

//! Token counters per tenant, day and model.
//!
//! Durability: deltas are summed in memory and written by the recorder together with the traces of the same requests,
//! at most a fraction of a second later; a crash loses no more than that.

use super::{Registry, RegistryError, keys, parse};
use crate::event::Usage;
use crate::id::TenantId;
use serde::{Deserialize, Serialize};

/// One row of the usage list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRow {
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    pub model: String,
    #[serde(flatten)]
    pub total: UsageDelta,
}

/// What requests have taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UsageDelta {
    pub requests: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
}

impl UsageDelta {
    /// One request's.
    pub fn of(usage: Usage) -> Self {
        Self {
            requests: 1,
            prompt_tokens: usage.prompt_tokens.into(),
            cached_tokens: usage.cached_tokens.into(),
            completion_tokens: usage.completion_tokens.into(),
        }
    }
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            prompt_tokens: self.prompt_tokens.saturating_add(other.prompt_tokens),
            cached_tokens: self.cached_tokens.saturating_add(other.cached_tokens),
            completion_tokens: self.completion_tokens.saturating_add(other.completion_tokens),
        }
    }
}

impl Registry {
    /// By day and model, at most `limit`, after `after` (`DAY/MODEL`); only of `day` when given.
    pub fn usage(
        &self,
        tenant: &TenantId,
        day: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<UsageRow>, RegistryError> {
        let prefix = keys::usages(tenant, day);
        let after = after.map(|a| [&keys::usages(tenant, None)[..], a.as_bytes()].concat());
        let rows = self.store().scan(&prefix, after.as_deref(), limit)?;
        rows.iter().map(|r| parse("usage", &r.value)).collect()
    }
}

/// The UTC day `YYYY-MM-DD` of a time in seconds since 1970.
pub fn day(seconds: u64) -> String {
    // Civil date from a day count; source: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let z = seconds / 86_400 + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = doy - (153 * mp + 2) / 5 + 1;
    let m = if mp < 10 { mp + 3 } else { mp - 9 };
    let y = yoe + era * 400 + u64::from(m <= 2);
    format!("{y:04}-{m:02}-{d:02}")
}

#[cfg(test)]
mod tests {
    use super::day;

    #[test]
    fn days_follow_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_251_199, "2024-02-29"),
            (1_709_251_200, "2024-03-01"),
            (4_102_444_800, "2100-01-01"),
        ] {
            assert_eq!(day(seconds), text);
        }
    }
}

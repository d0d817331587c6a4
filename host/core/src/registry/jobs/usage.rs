//! What a tenant's jobs have taken on a day: a row for each job and day, which its worker alone writes.

use crate::id::TenantId;
use crate::registry::usage::day;
use crate::registry::{Registry, RegistryError, keys, now, parse, to_bytes};
use serde::{Deserialize, Serialize};

/// Rows read at once.
const STRIDE: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobUsage {
    /// Trained on.
    pub tokens: u64,
    /// Of workers' time.
    pub milliseconds: u64,
}

impl JobUsage {
    fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            milliseconds: self.milliseconds.saturating_add(other.milliseconds),
        }
    }
}

impl Registry {
    /// What all of a tenant's jobs have taken on the UTC day of `seconds` since 1970.
    pub fn job_usage(&self, tenant: &TenantId, seconds: u64) -> Result<JobUsage, RegistryError> {
        let prefix = keys::job_usages(tenant, &day(seconds));
        let (mut sum, mut after) = (JobUsage::default(), None::<Vec<u8>>);
        loop {
            let rows = self.store().scan(&prefix, after.as_deref(), STRIDE)?;
            let Some(last) = rows.last() else { return Ok(sum) };
            after = Some(last.key.to_vec());
            for row in &rows {
                sum = sum.plus(parse("job usage", &row.value)?);
            }
        }
    }

    /// Today's row of a job with `spent` added; `None` when nothing was.
    pub(super) fn usage_write(
        &self,
        tenant: &TenantId,
        id: &str,
        spent: JobUsage,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>, RegistryError> {
        if spent == JobUsage::default() {
            return Ok(None);
        }
        let key = keys::job_usage(tenant, &day(now()), id);
        let row = self.store().get(&key)?.map(|r| parse::<JobUsage>("job usage", &r.value)).transpose()?;
        Ok(Some((key, to_bytes(&row.unwrap_or_default().plus(spent))?)))
    }
}

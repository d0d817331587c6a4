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

/// A row to write.
type KeyValue = (Vec<u8>, Vec<u8>);

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

    /// The name and bound of a daily quota of the tenant's jobs that is used up today.
    pub fn spent_job_quota(&self, tenant: &TenantId) -> Result<Option<(&'static str, u64)>, RegistryError> {
        let quotas = self.tenant(tenant)?.map(|t| t.quotas).unwrap_or_default();
        if quotas.job_tokens_per_day.is_none() && quotas.job_seconds_per_day.is_none() {
            return Ok(None);
        }
        let used = self.job_usage(tenant, now())?;
        let bounds = [
            ("job_tokens_per_day", quotas.job_tokens_per_day, used.tokens),
            ("job_seconds_per_day", quotas.job_seconds_per_day, used.milliseconds / 1000),
        ];
        let spent = bounds.into_iter().find(|(_, bound, used)| bound.is_some_and(|b| *used >= b));
        Ok(spent.and_then(|(name, bound, _)| Some((name, bound?))))
    }

    /// Today's row of a job with `spent` added; `None` when nothing was.
    pub(super) fn usage_write(
        &self,
        tenant: &TenantId,
        id: &str,
        spent: JobUsage,
    ) -> Result<Option<KeyValue>, RegistryError> {
        if spent == JobUsage::default() {
            return Ok(None);
        }
        let key = keys::job_usage(tenant, &day(now()), id);
        let row = self.store().get(&key)?.map(|r| parse::<JobUsage>("job usage", &r.value)).transpose()?;
        Ok(Some((key, to_bytes(&row.unwrap_or_default().plus(spent))?)))
    }
}

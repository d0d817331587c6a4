//! Tenants and their quotas.

use super::{ApiKey, Registry, RegistryError, Versioned, keys, now, parse, to_bytes};
use crate::id::TenantId;
use crate::store::{Batch, Expect, StoreError};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    pub id: TenantId,
    pub quotas: Quotas,
    /// Seconds since 1970.
    pub created_at: u64,
}

/// Bounds on what a tenant takes; `None` leaves the host's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Inference requests at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
    /// Inference requests in any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Prompt and completion tokens in any minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Prompt and completion tokens in a day (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Jobs that have not ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u32>,
    /// Tokens that jobs may train on in a day (UTC); at the bound they pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_tokens_per_day: Option<u64>,
    /// Seconds that jobs may run in a day (UTC), all together; at the bound they pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_seconds_per_day: Option<u64>,
    /// Served models that the tenant may use, besides its own; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
}

/// The key of a tenant's own row, for batches that must not outlive the tenant.
pub fn tenant_row_key(id: &TenantId) -> Vec<u8> {
    keys::tenant(id)
}

/// The prefix of all of a tenant's rows, which go with it.
pub fn tenant_rows(id: &TenantId) -> Vec<u8> {
    keys::all_of(id)
}

/// Tenants read at once where all are walked.
const STRIDE: usize = 512;
/// Most model names in [`Quotas::models`].
const MAX_MODELS: usize = 64;

impl Registry {
    /// # Errors
    /// [`RegistryError::Exists`] when there is one of this name.
    pub async fn create_tenant(&self, id: TenantId, quotas: Quotas) -> Result<Tenant, RegistryError> {
        check_quotas(&quotas)?;
        // Rows of an earlier tenant of this name, whose deletion was cut off, must not come back to life.
        if self.store().get(&keys::tenant(&id))?.is_none() {
            self.purge(&id).await?;
        }
        let tenant = Tenant { id, quotas, created_at: now() };
        let key = keys::tenant(&tenant.id);
        let batch = Batch::new().expect(key.clone(), Expect::Absent).put(key, to_bytes(&tenant)?);
        match self.store().commit(batch).await {
            Ok(_) => Ok(tenant),
            Err(StoreError::Conflict { .. }) => {
                Err(RegistryError::Exists { what: "tenant", name: tenant.id.to_string() })
            }
            Err(e) => Err(e.into()),
        }
    }

    pub fn tenant(&self, id: &TenantId) -> Result<Option<Tenant>, RegistryError> {
        let row = self.store().get(&keys::tenant(id))?;
        row.map(|r| parse("tenant", &r.value)).transpose()
    }

    /// By name, at most `limit`, after the one named `after`.
    pub fn tenants(&self, after: Option<&str>, limit: usize) -> Result<Vec<Tenant>, RegistryError> {
        let prefix = keys::TENANTS.as_bytes();
        let after = after.map(|a| [prefix, a.as_bytes()].concat());
        let rows = self.store().scan(prefix, after.as_deref(), limit)?;
        rows.iter().map(|r| parse("tenant", &r.value)).collect()
    }

    pub async fn set_quotas(&self, id: &TenantId, quotas: Quotas) -> Result<Tenant, RegistryError> {
        check_quotas(&quotas)?;
        let found = self.tenant_row(id)?;
        let tenant = Tenant { quotas, ..found.value };
        let key = keys::tenant(id);
        let batch = Batch::new().expect(key.clone(), Expect::Revision(found.revision)).put(key, to_bytes(&tenant)?);
        match self.store().commit(batch).await {
            Ok(_) => Ok(tenant),
            Err(StoreError::Conflict { found, .. }) => Err(RegistryError::RevisionMismatch { found }),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes a tenant with all its rows and blobs. From the first commit on, none of its keys is known.
    pub async fn delete_tenant(&self, id: &TenantId) -> Result<(), RegistryError> {
        if *id == TenantId::default_tenant() {
            return Err(RegistryError::Conflict("the default tenant cannot be deleted".into()));
        }
        self.tenant_row(id)?;
        let batch = Batch::new().delete(keys::tenant(id));
        self.store().commit(batch).await?;
        self.purge(id).await?;
        self.inner.pins.forget(id);
        self.inner.counts.forget(id);
        self.inner.sizes.forget();
        self.sweep_blobs().await?;
        Ok(())
    }

    /// Makes the tenant `default` if there is none yet.
    pub async fn ensure_default_tenant(&self) -> Result<(), RegistryError> {
        let made = self.create_tenant(TenantId::default_tenant(), Quotas::default()).await;
        match made {
            Ok(_) | Err(RegistryError::Exists { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    pub(super) fn tenant_row(&self, id: &TenantId) -> Result<Versioned<Tenant>, RegistryError> {
        match self.store().get(&keys::tenant(id))? {
            Some(row) => Ok(Versioned { value: parse("tenant", &row.value)?, revision: row.revision }),
            None => Err(RegistryError::NotFound { what: "tenant", name: id.to_string() }),
        }
    }

    /// Calls `visit` for every tenant, by name.
    pub(super) fn each_tenant(
        &self,
        mut visit: impl FnMut(&TenantId) -> Result<(), RegistryError>,
    ) -> Result<(), RegistryError> {
        let mut after: Option<String> = None;
        loop {
            let tenants = self.tenants(after.as_deref(), STRIDE)?;
            let Some(last) = tenants.last() else { return Ok(()) };
            after = Some(last.id.to_string());
            tenants.iter().try_for_each(|tenant| visit(&tenant.id))?;
        }
    }

    async fn purge(&self, id: &TenantId) -> Result<(), RegistryError> {
        self.purge_models(id).await?;
        loop {
            let rows = self.store().scan(&keys::api_keys(Some(id)), None, 256)?;
            if rows.is_empty() {
                break;
            }
            let mut batch = Batch::new();
            for row in rows {
                if let Ok(key) = parse::<ApiKey>("API key", &row.value) {
                    batch = batch.delete(keys::secret_index(key.secret_sha256));
                }
                batch = batch.delete(row.key);
            }
            self.store().commit(batch).await?;
        }
        loop {
            let rows = self.store().scan(&keys::all_of(id), None, 512)?;
            if rows.is_empty() {
                return Ok(());
            }
            let batch = rows.into_iter().fold(Batch::new(), |batch, row| batch.delete(row.key));
            self.store().commit(batch).await?;
        }
    }
}

fn check_quotas(quotas: &Quotas) -> Result<(), RegistryError> {
    let models = quotas.models.as_deref().unwrap_or_default();
    let named = models.iter().all(|m| m.len() <= crate::id::MAX_NAME_BYTES);
    if models.len() > MAX_MODELS || !named {
        return Err(RegistryError::invalid("quotas.models", format!("at most {MAX_MODELS} model names")));
    }
    Ok(())
}

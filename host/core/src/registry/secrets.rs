//! Secrets that a tenant's components may read by name. Values are kept as given: whoever can read the data folder
//! can read them.

use super::{Registry, RegistryError, keys};
use crate::id::{ComponentName, TenantId};
use crate::store::Expect;

/// Longest value in bytes.
const MAX_SECRET_BYTES: usize = 64 << 10;

impl Registry {
    pub async fn set_secret(&self, tenant: &TenantId, name: &str, value: &str) -> Result<(), RegistryError> {
        check_name(name)?;
        self.tenant_row(tenant)?;
        if value.len() > MAX_SECRET_BYTES {
            return Err(RegistryError::TooLarge { what: "secret", size: value.len(), limit: MAX_SECRET_BYTES });
        }
        let place = keys::secret(tenant, name);
        self.write_value(&place, Some(value.as_bytes()), None, |b| b).await?;
        Ok(())
    }

    pub fn secret(&self, tenant: &TenantId, name: &str) -> Result<Option<String>, RegistryError> {
        check_name(name)?;
        let found = self.read_value(&keys::secret(tenant, name))?;
        Ok(found.map(|v| String::from_utf8_lossy(&v.value).into_owned()))
    }

    /// Names alone, in order.
    pub fn secret_names(
        &self,
        tenant: &TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, RegistryError> {
        let prefix = keys::secrets(tenant);
        let after = after.map(|a| [&prefix[..], a.as_bytes()].concat());
        let rows = self.store().scan(&prefix, after.as_deref(), limit)?;
        let names = rows.iter().map(|r| String::from_utf8_lossy(&r.key[prefix.len()..]).into_owned());
        Ok(names.collect())
    }

    /// `false` when there was none.
    pub async fn delete_secret(&self, tenant: &TenantId, name: &str) -> Result<bool, RegistryError> {
        check_name(name)?;
        let place = keys::secret(tenant, name);
        match self.write_value(&place, None, Some(Expect::Present), |b| b).await {
            Ok(_) => Ok(true),
            Err(RegistryError::RevisionMismatch { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn check_name(name: &str) -> Result<(), RegistryError> {
    // Secret names follow the slug rule of component names.
    match ComponentName::new(&name.to_ascii_lowercase()) {
        Ok(_) => Ok(()),
        Err(e) => Err(RegistryError::invalid("secret", e.rule)),
    }
}

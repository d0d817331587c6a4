//! Secrets that a tenant's components may read by name, sealed by the host's vault.
//!
//! ```text
//! sealed   0xff, KeyId (8 bytes), what the vault made of the text for this very row
//! plain    the text, which as UTF-8 never begins with 0xff
//! ```
//!
//! Invariant: with a vault, no secret is written in plain text. Plain rows are what hosts before the vault wrote, until
//! [`Registry::seal_secrets`] has gone over them, and what a registry without one writes, whose store is in memory.

use super::keys::Place;
use super::{Registry, RegistryError, keys};
use crate::id::{ComponentName, TenantId};
use crate::store::{Expect, StoreError};
use crate::vault::{KeyId, Sealed, VaultError};

/// Longest value in bytes.
const MAX_SECRET_BYTES: usize = 64 << 10;
const SEALED: u8 = 0xff;
const HEADER_BYTES: usize = 9;
/// Names read at once where all are walked.
const STRIDE: usize = 256;

/// What became of all secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sealing {
    /// Now under the current key; they were in plain text before, or under an older key.
    pub sealed: u64,
    /// Under a key that this host does not have, or damaged.
    pub lost: u64,
}

/// A secret's row.
enum Kept<'a> {
    Plain(&'a [u8]),
    Sealed(Sealed),
}

impl<'a> Kept<'a> {
    fn of(row: &'a [u8]) -> Option<Self> {
        if row.first() != Some(&SEALED) {
            return Some(Self::Plain(row));
        }
        let (header, bytes) = row.split_at_checked(HEADER_BYTES)?;
        let key = KeyId(header[1..].try_into().ok()?);
        Some(Self::Sealed(Sealed { key, bytes: bytes.to_vec() }))
    }
}

impl Registry {
    pub async fn set_secret(&self, tenant: &TenantId, name: &str, value: &str) -> Result<(), RegistryError> {
        check_name(name)?;
        self.tenant_row(tenant)?;
        if value.len() > MAX_SECRET_BYTES {
            return Err(RegistryError::TooLarge { what: "secret", size: value.len(), limit: MAX_SECRET_BYTES });
        }
        let place = keys::secret(tenant, name);
        let row = self.seal(&place, name, value.as_bytes())?;
        self.write_value(&place, Some(&row), None, |b| b).await?;
        Ok(())
    }

    /// # Errors
    /// [`RegistryError::Sealed`] when this host does not have the key.
    pub fn secret(&self, tenant: &TenantId, name: &str) -> Result<Option<String>, RegistryError> {
        check_name(name)?;
        let place = keys::secret(tenant, name);
        let Some(found) = self.read_value(&place)? else { return Ok(None) };
        let plain = self.unseal(&place, name, &found.value)?;
        Ok(Some(String::from_utf8(plain).map_err(|_| damaged(name))?))
    }

    /// Seals what is in plain text or under an older key, over all tenants.
    pub async fn seal_secrets(&self) -> Result<Sealing, RegistryError> {
        let Some(vault) = &self.inner.vault else { return Ok(Sealing::default()) };
        let mut done = Sealing::default();
        for (tenant, name) in self.all_secrets()? {
            let place = keys::secret(&tenant, &name);
            let Some(found) = self.read_value(&place)? else { continue };
            if matches!(Kept::of(&found.value), Some(Kept::Sealed(s)) if s.key == vault.current()) {
                continue;
            }
            let Ok(plain) = self.unseal(&place, &name, &found.value) else {
                tracing::warn!(%tenant, secret = name, "a secret cannot be opened: its key is not here, or it is damaged");
                done.lost += 1;
                continue;
            };
            let row = self.seal(&place, &name, &plain)?;
            let seen = Some(Expect::Revision(found.revision));
            match self.write_value(&place, Some(&row), seen, |b| b).await {
                Ok(_) => done.sealed += 1,
                // Set anew or deleted meanwhile.
                Err(RegistryError::RevisionMismatch { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn all_secrets(&self) -> Result<Vec<(TenantId, String)>, RegistryError> {
        let mut all = Vec::new();
        self.each_tenant(|tenant| {
            let mut after: Option<String> = None;
            loop {
                let names = self.secret_names(tenant, after.as_deref(), STRIDE)?;
                let Some(last) = names.last() else { return Ok(()) };
                after = Some(last.clone());
                all.extend(names.into_iter().map(|name| (tenant.clone(), name)));
            }
        })?;
        Ok(all)
    }

    fn seal(&self, place: &Place, name: &str, plain: &[u8]) -> Result<Vec<u8>, RegistryError> {
        let Some(vault) = &self.inner.vault else { return Ok(plain.to_vec()) };
        let sealed = vault.seal(&place.head, plain).map_err(|e| refused(name, e))?;
        Ok([&[SEALED], &sealed.key.0[..], &sealed.bytes].concat())
    }

    fn unseal(&self, place: &Place, name: &str, row: &[u8]) -> Result<Vec<u8>, RegistryError> {
        match (Kept::of(row).ok_or_else(|| damaged(name))?, &self.inner.vault) {
            (Kept::Plain(text), _) => Ok(text.to_vec()),
            (Kept::Sealed(sealed), Some(vault)) => vault.open(&place.head, &sealed).map_err(|e| refused(name, e)),
            (Kept::Sealed(sealed), None) => Err(refused(name, VaultError::UnknownKey(sealed.key))),
        }
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

fn refused(name: &str, source: VaultError) -> RegistryError {
    RegistryError::Sealed { name: name.into(), source }
}

fn damaged(name: &str) -> RegistryError {
    StoreError::Corrupt { what: format!("secret {name}") }.into()
}

fn check_name(name: &str) -> Result<(), RegistryError> {
    // Secret names follow the slug rule of component names.
    match ComponentName::new(&name.to_ascii_lowercase()) {
        Ok(_) => Ok(()),
        Err(e) => Err(RegistryError::invalid("secret", e.rule)),
    }
}

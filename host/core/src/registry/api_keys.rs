//! API keys: secrets that name a tenant and what may be done for it.
//!
//! Invariant: a secret is kept as its sha256 alone. Secrets carry 256 random bits, so a plain digest cannot be turned
//! back, and the lookup by digest tells an attacker's clock nothing about the secrets that exist.

use super::{Registry, RegistryError, keys, now, parse, to_bytes};
use crate::id::{Digest, TenantId};
use crate::store::{Batch, Expect, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// Longest display name of a key in bytes.
const MAX_LABEL_BYTES: usize = 128;
/// Id of the admin key that the operator's environment or the first start gives.
const OPERATOR_KEY: &str = "key_operator";

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Model calls.
    Inference,
    /// Uploads, grants, bindings, invocations.
    Components,
    Jobs,
    /// All of the tenant, its keys included; of a key without a tenant: the whole host.
    Admin,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    pub id: String,
    /// `None`: the whole host's.
    pub tenant: Option<TenantId>,
    pub name: String,
    pub scopes: Vec<Scope>,
    /// Seconds since 1970.
    pub expires_at: Option<u64>,
    pub created_at: u64,
    pub secret_sha256: Digest,
}

/// What the maker of a key decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    pub tenant: Option<TenantId>,
    pub name: String,
    pub scopes: Vec<Scope>,
    pub expires_at: Option<u64>,
}

impl ApiKey {
    /// An admin key may do everything in its reach.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }
}

/// The text of a secret from 256 random bits of the operating system.
pub fn secret_text(random: [u8; 32]) -> String {
    let mut text = String::from("sk-");
    for byte in random {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Which row an index row of a secret points at.
#[derive(Serialize, Deserialize)]
struct Pointer {
    tenant: Option<TenantId>,
    id: String,
}

impl Registry {
    /// # Errors
    /// [`RegistryError::NotFound`] when the tenant does not exist; [`RegistryError::Exists`] when the secret is taken.
    pub async fn create_key(&self, new: NewKey, secret: &str) -> Result<ApiKey, RegistryError> {
        let digest = sha256(secret);
        // A salted digest of the secret: the id tells nothing of the digest that is looked up.
        let id = format!("key_{}", &sha256(&format!("id {secret}")).to_string()[..16]);
        let key = check(ApiKey {
            id,
            tenant: new.tenant,
            name: new.name,
            scopes: new.scopes,
            expires_at: new.expires_at,
            created_at: now(),
            secret_sha256: digest,
        })?;
        let mut batch = Batch::new().expect(keys::secret_index(digest), Expect::Absent);
        if let Some(tenant) = &key.tenant {
            self.tenant_row(tenant)?;
            batch = batch.expect(keys::tenant(tenant), Expect::Present);
        }
        match self.store().commit(put_key(batch, &key)?).await {
            Ok(_) => Ok(key),
            Err(StoreError::Conflict { .. }) => Err(RegistryError::Exists { what: "API key", name: key.id }),
            Err(e) => Err(e.into()),
        }
    }

    /// The key with this secret; `None` when there is none or it has expired.
    pub fn key_by_secret(&self, secret: &str) -> Result<Option<ApiKey>, RegistryError> {
        let digest = sha256(secret);
        let Some(row) = self.store().get(&keys::secret_index(digest))? else {
            return Ok(None);
        };
        let at: Pointer = parse("API key index", &row.value)?;
        let Some(row) = self.store().get(&keys::api_key(at.tenant.as_ref(), &at.id))? else {
            return Ok(None);
        };
        let key: ApiKey = parse("API key", &row.value)?;
        let valid = key.secret_sha256 == digest && key.expires_at.is_none_or(|at| at > now());
        Ok(valid.then_some(key))
    }

    /// A tenant's keys (or the host's own, `None`), by id.
    pub fn keys(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ApiKey>, RegistryError> {
        let prefix = keys::api_keys(tenant);
        let after = after.map(|a| [&prefix[..], a.as_bytes()].concat());
        let rows = self.store().scan(&prefix, after.as_deref(), limit)?;
        rows.iter().map(|r| parse("API key", &r.value)).collect()
    }

    pub async fn delete_key(&self, tenant: Option<&TenantId>, id: &str) -> Result<(), RegistryError> {
        let (key, expect) = self.key_row(tenant, id)?;
        let row = keys::api_key(tenant, id);
        let batch = Batch::new().expect(row.clone(), expect).delete(keys::secret_index(key.secret_sha256)).delete(row);
        self.store().commit(batch).await?;
        Ok(())
    }

    /// Gives a key a new secret; the old one is unknown from then on.
    pub async fn rotate_key(&self, tenant: Option<&TenantId>, id: &str, secret: &str) -> Result<ApiKey, RegistryError> {
        let (key, expect) = self.key_row(tenant, id)?;
        let batch = Batch::new()
            .expect(keys::api_key(tenant, id), expect)
            .expect(keys::secret_index(sha256(secret)), Expect::Absent)
            .delete(keys::secret_index(key.secret_sha256));
        let key = ApiKey { secret_sha256: sha256(secret), ..key };
        self.store().commit(put_key(batch, &key)?).await?;
        Ok(key)
    }

    /// Whether the host has an admin key of its own.
    pub fn has_operator_key(&self) -> Result<bool, RegistryError> {
        let row = self.store().get(&keys::api_key(None, OPERATOR_KEY))?;
        Ok(row.is_some())
    }

    /// Makes `secret` the operator's admin key, in place of an earlier one.
    pub async fn set_operator_key(&self, secret: &str) -> Result<ApiKey, RegistryError> {
        let digest = sha256(secret);
        let row_key = keys::api_key(None, OPERATOR_KEY);
        let row = self.store().get(&row_key)?;
        let mut batch = Batch::new();
        if let Some(row) = row {
            let old: ApiKey = parse("API key", &row.value)?;
            if old.secret_sha256 == digest {
                return Ok(old);
            }
            batch = batch.delete(keys::secret_index(old.secret_sha256));
        }
        let key = ApiKey {
            id: OPERATOR_KEY.into(),
            tenant: None,
            name: "operator".into(),
            scopes: vec![Scope::Admin],
            expires_at: None,
            created_at: now(),
            secret_sha256: digest,
        };
        self.store().commit(put_key(batch, &key)?).await?;
        Ok(key)
    }

    fn key_row(&self, tenant: Option<&TenantId>, id: &str) -> Result<(ApiKey, Expect), RegistryError> {
        let not_found = || RegistryError::NotFound { what: "API key", name: id.chars().take(64).collect() };
        if id.len() > 64 {
            return Err(not_found());
        }
        let row = self.store().get(&keys::api_key(tenant, id))?;
        let row = row.ok_or_else(not_found)?;
        let key = parse("API key", &row.value)?;
        Ok((key, Expect::Revision(row.revision)))
    }
}

fn sha256(text: &str) -> Digest {
    Digest(Sha256::digest(text).into())
}

fn check(key: ApiKey) -> Result<ApiKey, RegistryError> {
    if key.name.len() > MAX_LABEL_BYTES || key.name.chars().any(char::is_control) {
        return Err(RegistryError::invalid(
            "name",
            format!("at most {MAX_LABEL_BYTES} bytes without control characters"),
        ));
    }
    if key.scopes.is_empty() || key.scopes.len() > 4 {
        return Err(RegistryError::invalid("scopes", "one or more of inference, components, jobs, admin"));
    }
    Ok(key)
}

fn put_key(batch: Batch, key: &ApiKey) -> Result<Batch, RegistryError> {
    let pointer = Pointer { tenant: key.tenant.clone(), id: key.id.clone() };
    Ok(batch
        .put(keys::secret_index(key.secret_sha256), to_bytes(&pointer)?)
        .put(keys::api_key(key.tenant.as_ref(), &key.id), to_bytes(key)?))
}

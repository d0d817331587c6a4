//! Who asks: an API key, the tenant it acts on, and what it may do there.
//!
//! A bad key is 401. What belongs to another tenant is 404, exactly like what does not exist. A missing scope on one's
//! own is 403. The key is looked up by its sha256 at each request, so a deleted key is dead at once, and the time of
//! the lookup tells nothing about secrets that exist.

use crate::app::App;
use crate::error::{ApiError, Code};
use axum::extract::FromRequestParts;
use axum::http::{header, request::Parts};
use stockade_core::TenantId;
use stockade_core::registry::{ApiKey, Scope};

/// Longest accepted secret in bytes.
const MAX_SECRET_BYTES: usize = 512;

/// An authenticated caller, acting on one tenant.
#[derive(Debug, Clone)]
pub struct Caller {
    pub tenant: TenantId,
    pub key: ApiKey,
}

impl Caller {
    /// Whether the key is the whole host's.
    pub fn is_operator(&self) -> bool {
        self.key.tenant.is_none() && self.key.allows(Scope::Admin)
    }

    pub fn need(&self, scope: Scope) -> Result<(), ApiError> {
        self.need_any(&[scope])
    }

    pub fn need_any(&self, scopes: &[Scope]) -> Result<(), ApiError> {
        if scopes.iter().any(|s| self.key.allows(*s)) {
            return Ok(());
        }
        let names: Vec<String> = scopes.iter().map(|s| format!("{s:?}").to_lowercase()).collect();
        Err(ApiError::new(Code::Forbidden, format!("the key lacks the scope `{}`", names.join("` or `"))))
    }

    pub fn need_operator(&self) -> Result<(), ApiError> {
        if self.is_operator() {
            return Ok(());
        }
        Err(ApiError::new(Code::Forbidden, "only an admin key of the host may do this"))
    }

    /// Refuses, as unknown, a tenant that is out of the key's reach.
    pub fn need_reach(&self, tenant: &TenantId) -> Result<(), ApiError> {
        if self.is_operator() || self.key.tenant.as_ref() == Some(tenant) {
            return Ok(());
        }
        Err(ApiError::not_found("tenant", tenant.as_str()))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let key = bearer(parts).map(|secret| app.registry.key_by_secret(secret));
        let key = match key.transpose()? {
            Some(Some(key)) => key,
            _ => {
                return Err(ApiError::new(
                    Code::Unauthenticated,
                    "a valid API key is required as `Authorization: Bearer KEY`",
                ));
            }
        };
        let named = match parts.headers.get("stockade-tenant") {
            Some(value) => {
                let text = value.to_str().unwrap_or_default();
                let unknown = |_| ApiError::not_found("tenant", &text.escape_debug().to_string());
                Some(TenantId::new(text).map_err(unknown)?)
            }
            None => None,
        };
        let own = key.tenant.clone();
        let tenant = named.or(own).unwrap_or_else(TenantId::default_tenant);
        let caller = Self { tenant, key };
        caller.need_reach(&caller.tenant)?;
        if app.registry.tenant(&caller.tenant)?.is_none() {
            return Err(ApiError::not_found("tenant", caller.tenant.as_str()));
        }
        tracing::Span::current().record("tenant", caller.tenant.as_str());
        Ok(caller)
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let text = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = text.split_once(' ')?;
    let secret = secret.trim();
    let sound = scheme.eq_ignore_ascii_case("bearer") && !secret.is_empty() && secret.len() <= MAX_SECRET_BYTES;
    sound.then_some(secret)
}

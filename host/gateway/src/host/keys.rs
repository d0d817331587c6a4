//! API keys. The secret is in the reply that made it and nowhere else.

use super::name_error;
use crate::app::App;
use crate::auth::Caller;
use crate::body::JsonBody;
use crate::error::{ApiError, Code};
use crate::fields::Fields;
use crate::reply::{self, Page};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use stockade_core::TenantId;
use stockade_core::registry::{ApiKey, NewKey, Scope, secret_text};

/// Names the whole host in place of a tenant.
const HOST: &str = "*";

pub async fn create(State(app): State<App>, caller: Caller, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    caller.need(Scope::Admin)?;
    let f = Fields::root(&body)?;
    let tenant = match f.str("tenant")? {
        None => Some(caller.tenant.clone()),
        Some(HOST) => {
            caller.need_operator()?;
            None
        }
        Some(name) => {
            let tenant = TenantId::new(name).map_err(name_error)?;
            caller.need_reach(&tenant)?;
            Some(tenant)
        }
    };
    let scopes = match f.array("scopes")? {
        None => vec![Scope::Inference],
        Some(list) => {
            let mut scopes: Vec<Scope> =
                serde_json::from_value(Value::Array(list.clone())).map_err(|e| f.wrong("scopes", e.to_string()))?;
            scopes.sort_by_key(|s| *s as u8);
            scopes.dedup();
            scopes
        }
    };
    if tenant.is_none() && scopes != [Scope::Admin] {
        return Err(f.wrong("scopes", "a key of the whole host is an admin key"));
    }
    let new = NewKey { tenant, name: f.str("name")?.unwrap_or_default().into(), scopes, expires_at: expires_at(&f)? };
    let secret = fresh_secret()?;
    let key = app.registry.create_key(new, &secret).await?;
    Ok(reply::json_as(StatusCode::CREATED, &shown(&key, Some(&secret))))
}

pub async fn list(State(app): State<App>, caller: Caller, page: Page) -> Result<Response, ApiError> {
    caller.need(Scope::Admin)?;
    let keys = app.registry.keys(Some(&caller.tenant), page.after(), page.limit)?;
    let data: Vec<Value> = keys.iter().map(|k| shown(k, None)).collect();
    Ok(page.reply(&data, |k| k["id"].as_str().unwrap_or_default().to_owned()))
}

pub async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Admin)?;
    let tenant = owner(&app, &caller, &id)?;
    app.registry.delete_key(tenant.as_ref(), &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub async fn rotate(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, ApiError> {
    caller.need(Scope::Admin)?;
    let tenant = owner(&app, &caller, &id)?;
    let secret = fresh_secret()?;
    let key = app.registry.rotate_key(tenant.as_ref(), &id, &secret).await?;
    Ok(reply::json(&shown(&key, Some(&secret))))
}

/// Where the key of this id is: with the tenant, or, for an operator, with the host.
fn owner(app: &App, caller: &Caller, id: &str) -> Result<Option<TenantId>, ApiError> {
    if caller.is_operator() {
        let host = app.registry.keys(None, None, 1000)?;
        if host.iter().any(|k| k.id == id) {
            return Ok(None);
        }
    }
    Ok(Some(caller.tenant.clone()))
}

fn shown(key: &ApiKey, secret: Option<&str>) -> Value {
    let mut out = json!({
        "id": key.id,
        "tenant": key.tenant.as_ref().map_or(HOST, TenantId::as_str),
        "name": key.name,
        "scopes": key.scopes,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
    });
    if let Some(secret) = secret {
        out["key"] = secret.into();
    }
    out
}

fn fresh_secret() -> Result<String, ApiError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|e| {
        tracing::error!(error = %e, "the system gives no random bytes");
        ApiError::new(Code::Internal, "the system gives no random bytes")
    })?;
    Ok(secret_text(random))
}

/// Seconds since 1970, or a time in RFC 3339's form in UTC.
fn expires_at(f: &Fields) -> Result<Option<u64>, ApiError> {
    match f.value("expires_at") {
        Some(Value::String(text)) => match seconds(text) {
            Some(at) => Ok(Some(at)),
            None => Err(f.wrong("expires_at", "must be seconds since 1970 or like 2030-01-31T12:00:00Z")),
        },
        _ => Ok(f.integer("expires_at", 0..=i64::MAX)?.and_then(|n| u64::try_from(n).ok())),
    }
}

fn seconds(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').or(text.strip_suffix("+00:00"))?;
    let (date, time) = text.split_once('T')?;
    let time = time.split('.').next()?;
    let numbers = |s: &str, sep: char| -> Option<Vec<u64>> {
        s.split(sep).map(|n| n.bytes().all(|b| b.is_ascii_digit()).then(|| n.parse().ok())?).collect()
    };
    let (date, time) = (numbers(date, '-')?, numbers(time, ':')?);
    let ([year, month, day], [hour, minute, second]) = (&date[..], &time[..]) else {
        return None;
    };
    let in_range = (1970..=9999).contains(year)
        && (1..=12).contains(month)
        && (1..=31).contains(day)
        && *hour < 24
        && *minute < 60
        && *second < 61;
    if !in_range {
        return None;
    }
    // Days since 1970; source: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let y = if *month <= 2 { year - 1 } else { *year };
    let (era, yoe) = (y / 400, y % 400);
    let mp = (month + 9) % 12;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + (153 * mp + 2) / 5 + day - 1;
    let days = (era * 146_097 + doe).checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_in_rfc_3339_become_seconds() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199)),
            ("2024-03-01T00:00:00.5+00:00", Some(1_709_251_200)),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01", None),
            ("2024-01-01T00:00:00+02:00", None),
            ("-1-+1-01T00:00:00Z", None),
        ] {
            assert_eq!(seconds(text), want, "{text}");
        }
    }
}

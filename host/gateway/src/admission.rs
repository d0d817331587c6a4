//! Which inference requests are let in: bounds on how many run at once, and tenants' rates.
//!
//! Invariant: a permit counts until it is dropped, which is when the last byte of the reply is written or the client is
//! gone.

use crate::error::{ApiError, Code};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use stockade_core::TenantId;
use stockade_core::registry::{Quotas, Registry};

const MINUTE: Duration = Duration::from_secs(60);
const DAY_SECONDS: u64 = 86_400;

/// Counters of all tenants; one tenant's are made at its first request.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    load: Arc<Mutex<Load>>,
}

/// Bounds of the host.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub total: usize,
    /// For tenants whose quotas say nothing.
    pub per_tenant: u32,
}

#[derive(Debug, Default)]
struct Load {
    running: usize,
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    running: u32,
    /// Requests and tokens of the last minute, by the second in which they came.
    minute: VecDeque<(Instant, u64, u64)>,
    /// Days since 1970, and the tokens of that day.
    day: (u64, u64),
}

/// A running request. Dropping it makes room.
#[derive(Debug)]
pub struct Permit {
    tenant: TenantId,
    load: Arc<Mutex<Load>>,
}

impl Admission {
    pub fn new(limits: Limits) -> Self {
        Self { limits, load: Arc::default() }
    }

    pub fn running(&self) -> usize {
        self.load.lock().running
    }

    /// Lets a request of `tenant` in, or tells when to come back.
    pub fn admit(&self, registry: &Registry, tenant: &TenantId, quotas: &Quotas) -> Result<Permit, ApiError> {
        let today = unix_seconds() / DAY_SECONDS;
        self.know_today(registry, tenant, today)?;
        let now = Instant::now();
        let mut load = self.load.lock();
        if load.running >= self.limits.total {
            return Err(ApiError::new(Code::Overloaded, format!("{} requests are running", load.running)));
        }
        let counters = load.tenants.entry(tenant.clone()).or_default();
        counters.check(quotas, self.limits.per_tenant, now, today)?;
        counters.running += 1;
        counters.count(now, 1, 0);
        load.running += 1;
        Ok(Permit { tenant: tenant.clone(), load: self.load.clone() })
    }

    /// Reads, at a tenant's first request of a day, the tokens that were used before this process began to count.
    fn know_today(&self, registry: &Registry, tenant: &TenantId, today: u64) -> Result<(), ApiError> {
        let known = |load: &Load| load.tenants.get(tenant).is_some_and(|t| t.day.0 == today);
        if known(&self.load.lock()) {
            return Ok(());
        }
        let text = stockade_core::registry::day(today * DAY_SECONDS);
        let rows = registry.usage(tenant, Some(&text), None, 1000)?;
        let tokens = rows
            .iter()
            .map(|r| r.total.prompt_tokens.saturating_add(r.total.completion_tokens))
            .fold(0u64, u64::saturating_add);
        let mut load = self.load.lock();
        let counters = load.tenants.entry(tenant.clone()).or_default();
        if counters.day.0 != today {
            counters.day = (today, tokens);
        }
        Ok(())
    }
}

impl Permit {
    /// Counts tokens against the tenant's rates.
    pub fn took(&self, tokens: u64) {
        let today = unix_seconds() / DAY_SECONDS;
        let mut load = self.load.lock();
        if let Some(counters) = load.tenants.get_mut(&self.tenant) {
            counters.count(Instant::now(), 0, tokens);
            if counters.day.0 == today {
                counters.day.1 = counters.day.1.saturating_add(tokens);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut load = self.load.lock();
        load.running = load.running.saturating_sub(1);
        if let Some(counters) = load.tenants.get_mut(&self.tenant) {
            counters.running = counters.running.saturating_sub(1);
        }
        // Idle tenants are forgotten once there are many: their counters come back with their next request.
        if load.tenants.len() > 10_000 {
            let now = Instant::now();
            load.tenants.retain(|_, t| t.running > 0 || t.in_minute(now).0 > 0);
        }
    }
}

impl Tenant {
    fn check(&mut self, quotas: &Quotas, default_running: u32, now: Instant, today: u64) -> Result<(), ApiError> {
        let at_once = quotas.concurrent_requests.unwrap_or(default_running);
        if self.running >= at_once {
            return Err(limited("concurrent_requests", u64::from(at_once), 1));
        }
        let (requests, tokens) = self.in_minute(now);
        let wait =
            self.minute.front().map_or(1, |(at, ..)| MINUTE.saturating_sub(now.duration_since(*at)).as_secs() + 1);
        if let Some(limit) = quotas.requests_per_minute
            && requests >= u64::from(limit)
        {
            return Err(limited("requests_per_minute", u64::from(limit), wait));
        }
        if let Some(limit) = quotas.tokens_per_minute
            && tokens >= limit
        {
            return Err(limited("tokens_per_minute", limit, wait));
        }
        if let Some(limit) = quotas.tokens_per_day
            && self.day.0 == today
            && self.day.1 >= limit
        {
            let left = DAY_SECONDS - unix_seconds() % DAY_SECONDS;
            return Err(ApiError::new(Code::QuotaExceeded, "the tenant's tokens of today are used up")
                .with("quota", "tokens_per_day")
                .with("limit", limit)
                .retry_after(left));
        }
        Ok(())
    }

    fn count(&mut self, now: Instant, requests: u64, tokens: u64) {
        match self.minute.back_mut() {
            Some((at, r, t)) if now.duration_since(*at) < Duration::from_secs(1) => {
                *r += requests;
                *t = t.saturating_add(tokens);
            }
            _ => self.minute.push_back((now, requests, tokens)),
        }
    }

    /// Requests and tokens of the last minute; at most 61 entries are kept.
    fn in_minute(&mut self, now: Instant) -> (u64, u64) {
        while let Some((at, ..)) = self.minute.front()
            && now.duration_since(*at) >= MINUTE
        {
            self.minute.pop_front();
        }
        self.minute.iter().fold((0, 0), |(r, t), (_, dr, dt)| (r + dr, t.saturating_add(*dt)))
    }
}

fn limited(quota: &'static str, limit: u64, seconds: u64) -> ApiError {
    ApiError::new(Code::RateLimited, format!("the tenant's quota {quota} of {limit} is reached"))
        .with("quota", quota)
        .with("limit", limit)
        .retry_after(seconds)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stockade_core::registry::MemoryStore;

    fn setup() -> (Admission, Registry, TenantId) {
        let store = Arc::new(MemoryStore::new());
        let limits = Limits { total: 3, per_tenant: 2 };
        (Admission::new(limits), Registry::new(store.clone(), store), TenantId::default_tenant())
    }

    #[test]
    fn a_tenant_at_its_bound_is_refused_until_a_request_ends_and_others_are_not() {
        let (admission, registry, t) = setup();
        let admit = |t: &TenantId| admission.admit(&registry, t, &Quotas::default());
        let first = admit(&t).unwrap();
        let _second = admit(&t).unwrap();
        assert_eq!(admit(&t).unwrap_err().code, Code::RateLimited);
        let other = TenantId::new("other").unwrap();
        let third = admit(&other).unwrap();
        assert_eq!(admit(&other).unwrap_err().code, Code::Overloaded);
        drop(third);
        drop(first);
        admit(&t).unwrap();
    }

    #[test]
    fn rates_count_requests_and_tokens_and_say_when_to_come_back() {
        let (admission, registry, t) = setup();
        let quotas = Quotas { requests_per_minute: Some(2), ..Quotas::default() };
        for _ in 0..2 {
            admission.admit(&registry, &t, &quotas).unwrap();
        }
        let e = admission.admit(&registry, &t, &quotas).unwrap_err();
        assert_eq!(e.code, Code::RateLimited);
        assert!((1..=61).contains(&e.retry_after.unwrap()));
        let quotas = Quotas { tokens_per_minute: Some(10), tokens_per_day: Some(20), ..Quotas::default() };
        let permit = admission.admit(&registry, &t, &quotas).unwrap();
        permit.took(12);
        drop(permit);
        let e = admission.admit(&registry, &t, &quotas).unwrap_err();
        assert_eq!(e.field("quota").unwrap(), "tokens_per_minute");
        let daily = Quotas { tokens_per_day: Some(12), ..Quotas::default() };
        let e = admission.admit(&registry, &t, &daily).unwrap_err();
        assert_eq!(e.code, Code::QuotaExceeded);
    }
}

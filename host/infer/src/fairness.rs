//! Whose turn it is: virtual token counters (Sheng et al. 2024, "Fairness in Serving Large Language Models",
//! arXiv:2401.00588).
//!
//! A tenant's counter grows with the tokens it was served; the smallest is served next. A tenant that comes back is
//! lifted to the smallest counter of those present, so that idle time is not saved up.

use std::collections::HashMap;
use stockade_core::id::TenantId;

/// A decoded token costs as much as two prefilled ones.
pub(crate) const DECODE_COST: u64 = 2;
/// Tenants remembered after they left.
const MAX_REMEMBERED: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Fairness {
    tenants: HashMap<TenantId, Account>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Account {
    served: u64,
    present: usize,
}

impl Fairness {
    /// A sequence of `tenant` arrives.
    pub fn enter(&mut self, tenant: &TenantId) {
        let floor = self.tenants.values().filter(|a| a.present > 0).map(|a| a.served).min().unwrap_or(0);
        let account = self.tenants.entry(tenant.clone()).or_default();
        if account.present == 0 {
            account.served = account.served.max(floor);
        }
        account.present += 1;
    }

    /// A sequence of `tenant` is gone.
    pub fn leave(&mut self, tenant: &TenantId) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.present = account.present.saturating_sub(1);
        }
        if self.tenants.len() > MAX_REMEMBERED {
            self.tenants.retain(|_, account| account.present > 0);
        }
    }

    pub fn charge(&mut self, tenant: &TenantId, tokens: u64) {
        if let Some(account) = self.tenants.get_mut(tenant) {
            account.served = account.served.saturating_add(tokens);
        }
    }

    pub fn served(&self, tenant: &TenantId) -> u64 {
        self.tenants.get(tenant).map_or(0, |account| account.served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returning_tenant_is_lifted_and_keeps_its_debt() {
        let mut fairness = Fairness::default();
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        fairness.enter(&a);
        fairness.charge(&a, 100);
        fairness.enter(&b);
        assert_eq!(fairness.served(&b), 100, "idle time is not saved up");
        fairness.charge(&b, 50);
        fairness.leave(&b);
        fairness.enter(&b);
        assert_eq!(fairness.served(&b), 150, "leaving does not clear what was served");
    }
}

//! The bounded queue before a model: how many may wait, in all and for each tenant.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use stockade_core::id::TenantId;
use stockade_core::infer::InferError;

/// Counts who waits. A full queue refuses at once.
#[derive(Debug)]
pub(crate) struct Queue {
    max: usize,
    max_per_tenant: usize,
    waiting: Mutex<(usize, HashMap<TenantId, usize>)>,
}

/// A place in the queue, given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    tenant: TenantId,
}

impl Queue {
    pub fn new(max: usize, max_per_tenant: usize) -> Arc<Self> {
        Arc::new(Self { max, max_per_tenant, waiting: Mutex::default() })
    }

    pub fn enter(self: &Arc<Self>, tenant: &TenantId) -> Result<Ticket, InferError> {
        let mut waiting = self.waiting.lock();
        let (total, tenants) = &mut *waiting;
        let own = tenants.get(tenant).copied().unwrap_or(0);
        if *total >= self.max {
            return Err(InferError::Overloaded { waiting: *total });
        }
        if own >= self.max_per_tenant {
            return Err(InferError::Overloaded { waiting: own });
        }
        *total += 1;
        tenants.insert(tenant.clone(), own + 1);
        Ok(Ticket { queue: Arc::clone(self), tenant: tenant.clone() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.lock();
        waiting.0 -= 1;
        if let Some(own) = waiting.1.get_mut(&self.tenant) {
            *own -= 1;
            if *own == 0 {
                waiting.1.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_in_all_and_for_each_tenant_and_a_dropped_ticket_makes_room() {
        let queue = Queue::new(3, 2);
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let first = queue.enter(&a).unwrap();
        let _second = queue.enter(&a).unwrap();
        assert!(matches!(queue.enter(&a), Err(InferError::Overloaded { waiting: 2 })));
        let _third = queue.enter(&b).unwrap();
        assert!(matches!(queue.enter(&b), Err(InferError::Overloaded { waiting: 3 })));
        drop(first);
        queue.enter(&b).unwrap();
    }
}

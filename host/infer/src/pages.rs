//! The KV pages of one model: who holds which, and which full pages can be used again.
//!
//! Owns numbers only; the storage is the decoder's. A page is *held* (by one or more sequences), *kept* (held by
//! nobody, its content known by key) or *free*. Invariants: `held + kept + free` is all pages; only full pages are
//! ever shared, and a full page is never written again; a kept page is given up tail first, so that no page
//! outlives the page before it.

use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap};
use stockade_core::id::{Digest, TenantId};

/// Names the content of a full page: the digest of everything that its keys and values depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageKey([u8; 32]);

impl PageKey {
    /// The key before the first page: what belongs to another tenant, weights, adapter or KV type never matches.
    ///
    /// `secret` is made by the host at start, so that no client can choose or guess a salt.
    pub fn root(secret: &[u8; 32], tenant: &TenantId, weights: &Digest, adapter: Option<&Digest>, kv: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(secret);
        hash.update((tenant.as_str().len() as u64).to_le_bytes());
        hash.update(tenant.as_str());
        hash.update(weights.0);
        match adapter {
            Some(adapter) => {
                hash.update([1]);
                hash.update(adapter.0);
            }
            None => hash.update([0]),
        }
        hash.update(kv);
        Self(hash.finalize().into())
    }

    /// The key of the page that follows `self` and holds `tokens`.
    pub fn next(&self, tokens: &[u32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        Self(hash.finalize().into())
    }
}

#[derive(Debug, Default, Clone)]
struct Page {
    holders: u32,
    key: Option<PageKey>,
    /// Order in which kept pages are given up; meaningful while kept.
    rank: Rank,
}

/// Oldest first, then the furthest from the start.
type Rank = (u64, std::cmp::Reverse<u32>);

#[derive(Debug)]
pub struct Pages {
    pages: Vec<Page>,
    free: Vec<u32>,
    kept: BTreeSet<(Rank, u32)>,
    index: HashMap<PageKey, u32>,
    clock: u64,
}

impl Pages {
    pub fn new(total: usize) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self {
            pages: vec![Page::default(); total as usize],
            free: (0..total).rev().collect(),
            kept: BTreeSet::new(),
            index: HashMap::new(),
            clock: 0,
        }
    }

    pub fn total(&self) -> usize {
        self.pages.len()
    }

    /// Pages that a sequence could get now.
    pub fn available(&self) -> usize {
        self.free.len() + self.kept.len()
    }

    /// Pages that sequences hold.
    pub fn held(&self) -> usize {
        self.total() - self.available()
    }

    /// A page of undefined content, held once. Gives up the least recently used kept page if none is free.
    pub fn take(&mut self) -> Option<u32> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.kept.pop_first()?;
                let key = self.pages[page as usize].key.take();
                if let Some(key) = key {
                    self.index.remove(&key);
                }
                page
            }
        };
        self.pages[page as usize].holders = 1;
        Some(page)
    }

    /// How many leading keys are known, and how many of those pages nobody holds at present.
    pub fn peek(&self, keys: &[PageKey]) -> (usize, usize) {
        let found = keys.iter().map_while(|key| self.index.get(key));
        found.fold((0, 0), |(known, kept), &page| {
            (known + 1, kept + usize::from(self.pages[page as usize].holders == 0))
        })
    }

    /// Holds the pages of the longest known prefix of `keys`.
    pub fn reuse(&mut self, keys: &[PageKey]) -> Vec<u32> {
        let found: Vec<u32> = keys.iter().map_while(|key| self.index.get(key).copied()).collect();
        for &id in &found {
            let page = &mut self.pages[id as usize];
            if page.holders == 0 {
                self.kept.remove(&(page.rank, id));
            }
            page.holders += 1;
        }
        found
    }

    /// Makes a held page, now full, known by its key. A key that is known already stays with its first page.
    pub fn publish(&mut self, id: u32, key: PageKey) {
        let page = &mut self.pages[id as usize];
        if page.key.is_none() && !self.index.contains_key(&key) {
            page.key = Some(key);
            self.index.insert(key, id);
        }
    }

    /// Ends a sequence's hold of its pages, given in order from position 0.
    pub fn release(&mut self, pages: &[u32]) {
        self.clock += 1;
        for (depth, &id) in pages.iter().enumerate() {
            let page = &mut self.pages[id as usize];
            page.holders = page.holders.checked_sub(1).expect("a released page is held");
            if page.holders > 0 {
                continue;
            }
            if page.key.is_some() {
                page.rank = (self.clock, std::cmp::Reverse(depth as u32));
                self.kept.insert((page.rank, id));
            } else {
                self.free.push(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chain(tenant: &str, tokens: &[u32]) -> Vec<PageKey> {
        let tenant = TenantId::new(tenant).unwrap();
        let mut key = PageKey::root(&[7; 32], &tenant, &Digest([1; 32]), None, "f16");
        tokens
            .iter()
            .map(|&t| {
                key = key.next(&[t]);
                key
            })
            .collect()
    }

    #[test]
    fn a_prefix_is_found_again_by_the_same_tenant_alone() {
        let mut pages = Pages::new(4);
        let keys = chain("a", &[1, 2, 3]);
        let held: Vec<_> = keys.iter().map(|_| pages.take().unwrap()).collect();
        for (&page, &key) in held.iter().zip(&keys) {
            pages.publish(page, key);
        }
        pages.release(&held);
        assert_eq!(pages.held(), 0);
        assert!(pages.reuse(&chain("b", &[1, 2, 3])).is_empty());
        assert_eq!(pages.reuse(&chain("a", &[1, 2, 9])), held[..2]);
        assert_eq!(pages.held(), 2);
    }

    #[test]
    fn every_part_of_the_root_separates_prefixes() {
        let (t, u) = (TenantId::new("t").unwrap(), TenantId::new("u").unwrap());
        let (d, e) = (Digest([1; 32]), Digest([2; 32]));
        let roots = [
            PageKey::root(&[0; 32], &t, &d, None, "f16"),
            PageKey::root(&[1; 32], &t, &d, None, "f16"),
            PageKey::root(&[0; 32], &u, &d, None, "f16"),
            PageKey::root(&[0; 32], &t, &e, None, "f16"),
            PageKey::root(&[0; 32], &t, &d, Some(&d), "f16"),
            PageKey::root(&[0; 32], &t, &d, Some(&e), "f16"),
            PageKey::root(&[0; 32], &t, &d, None, "f32"),
        ];
        let distinct: std::collections::HashSet<_> = roots.iter().collect();
        assert_eq!(distinct.len(), roots.len());
    }

    #[test]
    fn the_least_recently_used_tail_is_given_up_first() {
        let mut pages = Pages::new(4);
        let (old, new) = (chain("a", &[1, 2]), chain("a", &[5, 6]));
        for keys in [&old, &new] {
            let held: Vec<_> = keys.iter().map(|_| pages.take().unwrap()).collect();
            for (&page, &key) in held.iter().zip(keys.iter()) {
                pages.publish(page, key);
            }
            pages.release(&held);
        }
        pages.take().unwrap();
        assert_eq!(pages.peek(&old), (1, 1), "the old tail went");
        pages.take().unwrap();
        assert_eq!(pages.peek(&old), (0, 0), "then its head");
        assert_eq!(pages.peek(&new), (2, 2));
    }

    proptest! {
        /// A model of sequences that take, publish, reuse and release in any order.
        #[test]
        fn pages_are_conserved_and_no_held_page_is_handed_out(ops in proptest::collection::vec((0u8..4, 0u32..6), 0..200)) {
            let mut pages = Pages::new(8);
            let mut sequences: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
            for (op, n) in ops {
                match op {
                    0 => {
                        let tokens: Vec<u32> = (0..n % 4).collect();
                        let held = pages.reuse(&chain("a", &tokens));
                        let tokens = tokens[..held.len()].to_vec();
                        sequences.push((tokens, held));
                    }
                    1 if !sequences.is_empty() => {
                        let at = n as usize % sequences.len();
                        if let Some(page) = pages.take() {
                            prop_assert!(sequences.iter().all(|(_, held)| !held.contains(&page)));
                            let (tokens, held) = &mut sequences[at];
                            tokens.push(held.len() as u32);
                            held.push(page);
                            pages.publish(page, *chain("a", tokens).last().unwrap());
                        }
                    }
                    _ if !sequences.is_empty() => {
                        let (_, held) = sequences.swap_remove(n as usize % sequences.len());
                        pages.release(&held);
                    }
                    _ => {}
                }
                let distinct: std::collections::HashSet<_> = sequences.iter().flat_map(|(_, held)| held).collect();
                prop_assert_eq!(pages.held(), distinct.len());
            }
            for (_, held) in sequences {
                pages.release(&held);
            }
            prop_assert_eq!(pages.available(), 8);
        }
    }
}

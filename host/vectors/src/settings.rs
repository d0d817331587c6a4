//! What the operator sets about vector indexes.

/// Sizes of indexes and of the memory they take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Vectors up to which an index compares with every one. At 5,000 of 384 dimensions that takes below a millisecond.
    pub exact_up_to: usize,
    /// Links of a node on the graph's higher levels; twice as many on the lowest.
    pub links: usize,
    /// Candidates that building looks at: more is slower and finds more.
    pub build_candidates: usize,
    /// Candidates that a search looks at, at least; four times the limit where that is more.
    pub search_candidates: usize,
    /// Searches and writes that run at once; others wait for their turn.
    pub at_once: usize,
    /// Indexes of one tenant.
    pub max_indexes: usize,
    /// Bytes of memory of one tenant's indexes in use, counted generously. An index alone cannot grow beyond it.
    pub tenant_bytes: usize,
    /// Bytes of memory of all indexes. The least recently used go first; they come back from their rows.
    pub total_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            exact_up_to: 5_000,
            links: 16,
            build_candidates: 100,
            search_candidates: 96,
            at_once: 2 * std::thread::available_parallelism().map_or(2, usize::from),
            max_indexes: 1_000,
            tenant_bytes: 1 << 30,
            total_bytes: 4 << 30,
        }
    }
}

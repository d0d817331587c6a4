//! What each method makes of a batch: which passes it needs, and how its loss reaches them.

//! Typed access to the records that a host keeps in its [`Store`](crate::store::Store).

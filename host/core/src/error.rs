//! What every error of the workspace can be asked: whose move it is next.

use std::future::Future;
use std::pin::Pin;

/// An error whose type the caller never looks into; it goes to the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The future of an object-safe asynchronous method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whose move it is after an error. HTTP status class, log level and retry hint derive from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller must change the request.
    Caller,
    /// The same request may succeed later.
    Load,
    /// The host, its disk or a component it runs is at fault.
    Host,
}

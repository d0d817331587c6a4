//! Domain words and seam traits of Stockade.
//!
//! Everybody knows this crate and it knows nobody: no I/O, no candle, no wasmtime, no HTTP. A trait sits
//! here, its implementations point up to it, and only the binary names concrete types.
//!
//! - words: [`id`], [`chat`], [`event`], [`limits`], [`error`]
//! - seams: [`infer::Inference`] (models), [`plugin::Plugins`] (components), [`store::Store`] and
//!   [`store::Blobs`] (durable state), [`vault::Vault`] (sealed secrets), [`vectors::Vectors`] (nearest neighbours),
//!   [`http::Http`] (the network), [`train::Trainer`] (training jobs)
//! - records kept in the store, and the typed access to them: [`registry`]
//! - what both HTTP and components do with them: [`jobs`]
//! - what shields judge, in the one form in which it goes on: [`json_text`]

pub mod chat;
pub mod error;
pub mod event;
pub mod http;
pub mod id;
pub mod infer;
pub mod jobs;
pub mod json_text;
pub mod limits;
pub mod plugin;
pub mod registry;
pub mod spelling;
pub mod store;
pub mod train;
pub mod vault;
pub mod vectors;

pub use error::{BoxError, BoxFuture, Fault};
pub use id::{ComponentRef, Digest, ModelId, RequestId, TenantId};

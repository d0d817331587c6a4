//! Durable state: an ordered map of small rows with compare-and-set batches, and content-addressed blobs.
//!
//! This crate owns one folder and everything in it:
//!
//! ```text
//! LOCK                held by the process that has the folder open
//! layout              the version of all this; written last when a folder is made, so it marks a whole one
//! journal/*.journal   the truth: segments of batches, each fsynced before its commit is acknowledged
//! journal/*.snapshot  the truth as of one commit, which replaces the segments before it
//! index/              sled, a cache of the above for reads; checked at open and rebuilt when in doubt
//! blobs/ab/cdef...    files named by their sha256, fsynced before `put` answers
//! secrets.key         what secrets are sealed with, unless the operator keeps that elsewhere; never copied by a backup
//! ```
//!
//! The invariant behind every file here: an acknowledgement means fsynced, what was acknowledged is never dropped in
//! silence, and no reader sees a commit before its fsync. sled alone could hold none of these: its `flush` does not
//! fsync on Linux, and it opens damaged files as if they were whole.
//!
//! Files of the crate, in the order to read them: `record` and `segment` (bytes), `folder` (which files, in what
//! order), `journal` (appending), `snapshot`, `index`, `recover` (open), `writer` (the one thread that commits),
//! `state` (the seam), `blobs`, `maintenance` (compact, backup, restore, verify). `vault` stands by itself.
//!
//! It does not own what rows mean (`stockade_core::registry`), and so it collects no garbage: a blob that no row names
//! stays until the registry's sweep deletes it.

mod blobs;
mod error;
mod folder;
mod index;
mod journal;
mod maintenance;
mod record;
mod recover;
mod segment;
mod snapshot;
mod state;
mod vault;
mod writer;

pub use blobs::BlobFolder;
pub use error::{IndexError, OpenError};
pub use maintenance::{Compacted, Copied, Verified, restore, verify};
pub use recover::IndexOrigin;
pub use state::{Config, State, Status};
pub use vault::{KeyError, KeyVault};

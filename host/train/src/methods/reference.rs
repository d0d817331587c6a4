//! Log-probabilities under the reference: the model that a run starts from, with the adapter off.
//!
//! They are computed once, before the first step, for every sequence that the run will ask for, and kept in a file of the
//! job's folder under the digest of what they depend on. So training holds one network, not two, and a run that resumes
//! reads the very same bits. The crossed pairs of kto are others in each epoch, so that all epochs are gone through.

use super::batch::{Batch, sum};
use super::{Objective, foreign};
use crate::checkpoint::write_atomically;
use crate::data::{Sequence, Source};
use crate::network::{Mode, Network};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use stockade_core::train::{Command, Observer, TrainError};

type Key = [u8; 16];

/// A key and an f64.
const RECORD_BYTES: usize = 24;
const DIGEST_BYTES: usize = 32;

/// Summed log-probabilities by sequence.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct References {
    sums: BTreeMap<Key, f64>,
}

impl References {
    /// Those that `objective` will ask for over all steps of `sources`: from `file`, if it was made for the same
    /// `digest`, else computed by `network`, which must hold the weights that the run starts from, and written there.
    /// `Ok(None)` when the observer wants the run to end meanwhile.
    pub fn prepare(
        objective: &Objective,
        network: &Network,
        sources: &[&dyn Source],
        file: &Path,
        digest: &str,
        observer: &dyn Observer,
    ) -> Result<Option<Self>, TrainError> {
        if !matches!(objective, Objective::Pairs(loss) if loss.has_reference())
            && !matches!(objective, Objective::Unpaired(_))
        {
            return Ok(Some(Self::default()));
        }
        if let Some(known) = Self::read(file, digest) {
            return Ok(Some(known));
        }
        observer.note("computing log-probabilities under the reference");
        let mut references = Self::default();
        for source in sources {
            for step in 0..source.steps() {
                if observer.command() != Command::Continue {
                    return Ok(None);
                }
                for rows in &source.step(step)?.micro_batches {
                    references.add(network, &objective.referenced(rows)?)?;
                }
            }
        }
        let io =
            |source: std::io::Error| TrainError::Io { stage: "reference log-probabilities", source: source.into() };
        write_atomically(file, &references.to_bytes(digest)).map_err(io)?;
        Ok(Some(references))
    }

    /// Of a sequence's labels, in nats.
    pub fn of(&self, sequence: &Sequence) -> Result<f64, TrainError> {
        let known = self.sums.get(&key(sequence)).copied();
        known.ok_or_else(|| foreign("a sequence has no reference: the data is not what it was when the run began"))
    }

    fn add(&mut self, network: &Network, sequences: &[Sequence]) -> Result<(), TrainError> {
        if sequences.iter().all(|sequence| self.sums.contains_key(&key(sequence))) {
            return Ok(());
        }
        let mut batch = Batch::default();
        for sequence in sequences {
            batch.push(sequence)?;
        }
        batch.packed.check(network.config())?;
        let mut pass = network.forward(&batch.packed, Mode::Eval, false)?;
        let log_probs = network.log_probs(&mut pass)?.log_probs;
        for (sequence, span) in sequences.iter().zip(&batch.spans) {
            self.sums.entry(key(sequence)).or_insert_with(|| sum(&log_probs[span.clone()]));
        }
        Ok(())
    }

    /// Digest of what they depend on, records in the order of keys, digest of all that.
    fn to_bytes(&self, digest: &str) -> Vec<u8> {
        let mut bytes = Sha256::digest(digest).to_vec();
        for (key, sum) in &self.sums {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(&sum.to_le_bytes());
        }
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        bytes
    }

    /// `None` for a file that is not there, not whole, or of other origin: then they are computed again.
    fn read(file: &Path, digest: &str) -> Option<Self> {
        let bytes = std::fs::read(file).ok()?;
        let (content, check) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
        let (origin, records) = content.split_at_checked(DIGEST_BYTES)?;
        if Sha256::digest(content)[..] != *check || Sha256::digest(digest)[..] != *origin {
            return None;
        }
        let sums = records.as_chunks::<RECORD_BYTES>().0.iter().map(|record| {
            let (key, sum) = record.split_at(size_of::<Key>());
            (key.try_into().expect("16 bytes"), f64::from_le_bytes(sum.try_into().expect("8 bytes")))
        });
        Some(Self { sums: sums.collect() })
    }
}

fn key(sequence: &Sequence) -> Key {
    let mut hash = Sha256::new();
    for (token, label) in sequence.tokens.iter().zip(&sequence.labels) {
        hash.update(token.to_le_bytes());
        hash.update(label.to_le_bytes());
    }
    let digest = hash.finalize();
    std::array::from_fn(|i| digest[i])
}

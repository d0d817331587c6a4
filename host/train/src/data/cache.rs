//! Examples on disk: written once for a job, read by position.
//!
//! Two files: `NAME.examples` holds the records one after the other, `NAME.index` twelve bytes for each: its offset (u64)
//! and its tokens (u32), little endian. In memory is only the number of tokens of each example.

use super::examples::length;
use super::{Example, IGNORE, Sequence};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use stockade_core::chat::Message;
use stockade_core::train::TrainError;

/// Most examples of one data set.
pub const MAX_EXAMPLES: usize = 1 << 26;
const ENTRY_BYTES: usize = 12;

pub struct CacheWriter {
    records: BufWriter<File>,
    index: BufWriter<File>,
    offset: u64,
    count: usize,
    hasher: Sha256,
}

impl CacheWriter {
    pub fn create(folder: &Path, name: &str) -> Result<Self, TrainError> {
        let create = |ending: &str| File::create(folder.join(format!("{name}.{ending}"))).map_err(failed);
        Ok(Self {
            records: BufWriter::new(create("examples")?),
            index: BufWriter::new(create("index")?),
            offset: 0,
            count: 0,
            hasher: Sha256::new(),
        })
    }

    /// # Errors
    /// The text says that there are too many.
    pub fn push(&mut self, example: &Example) -> Result<(), TrainError> {
        if self.count >= MAX_EXAMPLES {
            return Err(TrainError::spec("data", format!("more than {MAX_EXAMPLES} examples")));
        }
        let record = encode(example);
        self.hasher.update((record.len() as u64).to_le_bytes());
        self.hasher.update(&record);
        self.records.write_all(&record).map_err(failed)?;
        self.index.write_all(&self.offset.to_le_bytes()).map_err(failed)?;
        self.index.write_all(&length(example).to_le_bytes()).map_err(failed)?;
        self.offset += record.len() as u64;
        self.count += 1;
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Makes all of it durable; the sha256 over the records.
    pub fn finish(self) -> Result<[u8; 32], TrainError> {
        for writer in [self.records, self.index] {
            let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
            file.sync_all().map_err(failed)?;
        }
        Ok(self.hasher.finalize().into())
    }
}

pub struct Cache {
    records: File,
    index: File,
    records_bytes: u64,
    lengths: Vec<u32>,
}

impl Cache {
    pub fn open(folder: &Path, name: &str) -> Result<Self, TrainError> {
        let open = |ending: &str| File::open(folder.join(format!("{name}.{ending}"))).map_err(failed);
        let (records, mut index) = (open("examples")?, open("index")?);
        let count = index.metadata().map_err(failed)?.len() as usize / ENTRY_BYTES;
        if count > MAX_EXAMPLES {
            return Err(damaged());
        }
        let mut lengths = Vec::with_capacity(count);
        let mut buffer = vec![0; ENTRY_BYTES * 4096];
        let mut left = count * ENTRY_BYTES;
        while left > 0 {
            let part = &mut buffer[..left.min(ENTRY_BYTES * 4096)];
            index.read_exact(part).map_err(failed)?;
            left -= part.len();
            lengths.extend(part.chunks_exact(ENTRY_BYTES).map(|e| u32::from_le_bytes([e[8], e[9], e[10], e[11]])));
        }
        let records_bytes = records.metadata().map_err(failed)?.len();
        Ok(Self { records, index, records_bytes, lengths })
    }

    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens of each example.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// # Errors
    /// [`TrainError::Io`] if the files were changed since they were written.
    pub fn get(&self, i: usize) -> Result<Example, TrainError> {
        let offset = |i: usize| {
            let mut bytes = [0; 8];
            self.index.read_exact_at(&mut bytes, (i * ENTRY_BYTES) as u64).map_err(failed)?;
            Ok(u64::from_le_bytes(bytes))
        };
        if i >= self.lengths.len() {
            return Err(damaged());
        }
        let start = offset(i)?;
        let end = if i + 1 < self.lengths.len() { offset(i + 1)? } else { self.records_bytes };
        let size = end.checked_sub(start).filter(|_| end <= self.records_bytes).ok_or_else(damaged)?;
        let mut record = vec![0; size as usize];
        self.records.read_exact_at(&mut record, start).map_err(failed)?;
        decode(&record).ok_or_else(damaged)
    }
}

fn failed(error: std::io::Error) -> TrainError {
    TrainError::Io { stage: "keeping tokenized data", source: error.into() }
}

fn damaged() -> TrainError {
    failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "the job's tokenized data has been changed"))
}

fn encode(example: &Example) -> Vec<u8> {
    let mut out = Vec::new();
    match example {
        Example::Text(sequence) => {
            out.push(0);
            put_sequence(&mut out, sequence);
        }
        Example::Pair { chosen, rejected, margin } => {
            out.push(1);
            put_sequence(&mut out, chosen);
            put_sequence(&mut out, rejected);
            out.extend(margin.unwrap_or(f32::NAN).to_le_bytes());
        }
        Example::Unpaired { sequence, desirable } => {
            out.extend([2, u8::from(*desirable)]);
            put_sequence(&mut out, sequence);
        }
        Example::Prompt { tokens, messages, reference } => {
            out.push(3);
            put_tokens(&mut out, tokens);
            let texts = serde_json::to_vec(&(messages, reference)).expect("messages are JSON");
            out.extend(texts);
        }
        Example::Labelled { tokens, label } => {
            out.push(4);
            out.extend(label.to_le_bytes());
            put_tokens(&mut out, tokens);
        }
        Example::Similar { anchor, positive, negative } => {
            out.extend([5, u8::from(negative.is_some())]);
            for tokens in [Some(anchor), Some(positive), negative.as_ref()].into_iter().flatten() {
                put_tokens(&mut out, tokens);
            }
        }
    }
    out
}

fn decode(record: &[u8]) -> Option<Example> {
    let mut bytes = record;
    let example = match take::<1>(&mut bytes)? {
        [0] => Example::Text(sequence(&mut bytes)?),
        [1] => {
            let (chosen, rejected) = (sequence(&mut bytes)?, sequence(&mut bytes)?);
            let margin = f32::from_le_bytes(take(&mut bytes)?);
            Example::Pair { chosen, rejected, margin: (!margin.is_nan()).then_some(margin) }
        }
        [2] => {
            let [desirable] = take(&mut bytes)?;
            Example::Unpaired { desirable: desirable == 1, sequence: sequence(&mut bytes)? }
        }
        [3] => {
            let tokens = tokens(&mut bytes)?;
            let (messages, reference): (Vec<Message>, _) = serde_json::from_slice(bytes).ok()?;
            bytes = &[];
            Example::Prompt { tokens, messages, reference }
        }
        [4] => {
            let label = u32::from_le_bytes(take(&mut bytes)?);
            Example::Labelled { label, tokens: tokens(&mut bytes)? }
        }
        [5] => {
            let [has_negative] = take(&mut bytes)?;
            let (anchor, positive) = (tokens(&mut bytes)?, tokens(&mut bytes)?);
            let negative = if has_negative == 1 { Some(tokens(&mut bytes)?) } else { None };
            Example::Similar { anchor, positive, negative }
        }
        _ => return None,
    };
    bytes.is_empty().then_some(example)
}

fn put_tokens(out: &mut Vec<u8>, tokens: &[u32]) {
    out.extend((tokens.len() as u32).to_le_bytes());
    out.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
}

/// Tokens, then a bit for each that carries a label: a label is its token or none.
fn put_sequence(out: &mut Vec<u8>, sequence: &Sequence) {
    put_tokens(out, &sequence.tokens);
    out.extend(
        sequence.labels.chunks(8).map(|labels| {
            labels.iter().enumerate().fold(0u8, |bits, (i, &label)| bits | u8::from(label != IGNORE) << i)
        }),
    );
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn tokens(bytes: &mut &[u8]) -> Option<Vec<u32>> {
    let count = u32::from_le_bytes(take(bytes)?) as usize;
    let (taken, rest) = bytes.split_at_checked(count.checked_mul(4)?)?;
    *bytes = rest;
    Some(taken.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

fn sequence(bytes: &mut &[u8]) -> Option<Sequence> {
    let tokens = tokens(bytes)?;
    let (bits, rest) = bytes.split_at_checked(tokens.len().div_ceil(8))?;
    *bytes = rest;
    let label = |(i, &token): (usize, &u32)| if bits[i / 8] >> (i % 8) & 1 == 1 { token as i32 } else { IGNORE };
    let labels = tokens.iter().enumerate().map(label).collect();
    Some(Sequence { tokens, labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use stockade_core::chat::Role;

    fn a_sequence() -> impl Strategy<Value = Sequence> {
        proptest::collection::vec((0u32..1 << 24, any::<bool>()), 1..40).prop_map(|pairs| Sequence {
            tokens: pairs.iter().map(|(token, _)| *token).collect(),
            labels: pairs.iter().map(|&(token, labelled)| if labelled { token as i32 } else { IGNORE }).collect(),
        })
    }

    proptest! {
        #[test]
        fn examples_read_back_as_they_were_written(a in a_sequence(), b in a_sequence(), flag in any::<bool>()) {
            let negative = flag.then(|| b.tokens.clone());
            let examples = [
                Example::Text(a.clone()),
                Example::Pair { chosen: a.clone(), rejected: b.clone(), margin: flag.then_some(0.5) },
                Example::Unpaired { sequence: b.clone(), desirable: flag },
                Example::Prompt {
                    tokens: a.tokens.clone(),
                    messages: vec![Message::text(Role::User, "q")],
                    reference: flag.then(|| serde_json::json!({"answer": 4})),
                },
                Example::Labelled { tokens: a.tokens.clone(), label: 7 },
                Example::Similar { anchor: a.tokens.clone(), positive: b.tokens.clone(), negative },
            ];
            let folder = tempfile::tempdir().unwrap();
            let mut writer = CacheWriter::create(folder.path(), "train").unwrap();
            examples.iter().for_each(|example| writer.push(example).unwrap());
            writer.finish().unwrap();
            let cache = Cache::open(folder.path(), "train").unwrap();
            prop_assert_eq!(cache.len(), examples.len());
            for (i, example) in examples.iter().enumerate() {
                prop_assert_eq!(&cache.get(i).unwrap(), example);
                prop_assert_eq!(cache.lengths()[i], length(example));
            }
        }

        #[test]
        fn no_record_panics(record in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&record);
        }
    }
}

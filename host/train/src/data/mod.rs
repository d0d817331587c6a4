//! Rows of data become examples, examples become the batches of a step.
//!
//! [`prepare`] reads each file once, a row at a time, and keeps its examples tokenized in the job's folder; a run that
//! goes on finds them there under the digest of everything they depend on. Steps are then read by position.
//!
//! Invariant: a step's examples are a function of job, data and tokenizer alone.

mod batches;
mod cache;
mod example;
mod examples;
mod questions;
mod rows;
mod schema;
mod split;
#[cfg(test)]
mod tests;
mod text;

pub use batches::{Arrangement, Batches, Length};
pub use cache::MAX_EXAMPLES;
pub use example::{Example, IGNORE, Sequence, Source, StepData};
pub use examples::Counts;
pub use questions::Question;
pub use rows::{MAX_DOCUMENT_BYTES, MAX_ROW_BYTES};
pub use text::ModelText;

use crate::job::{DataName, Format, Job, Method};
use cache::{Cache, CacheWriter};
use examples::Encoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use stockade_core::train::{Command, Observer, Resolver, TrainError};

/// Changes when examples of the same rows become others.
const VERSION: u32 = 1;
/// Rows between two questions whether to go on.
const WATCHED: u64 = 256;
/// Time between two notes of how far the reading is.
const TELLING: Duration = Duration::from_secs(10);
/// Most labels of a classifier.
const MAX_LABELS: usize = 4096;

/// A job's data, ready to be trained on.
pub struct Prepared {
    pub train: Batches,
    pub eval: Option<Batches>,
    /// Held-out rows that the weights are asked at evaluations, as many as the job wants and there are.
    pub questions: Vec<Question>,
    /// Of a classifier, in the order of its head.
    pub labels: Vec<String>,
    /// What a person should know of the data, a sentence each.
    pub notes: Vec<String>,
    /// Names of what was read, and sha256 of it in hex.
    pub sources: Vec<(String, String)>,
}

/// Tokenizes the job's data into `folder`, or finds it there. `None` if the observer has the run end before that is done.
///
/// # Errors
/// [`TrainError::Row`] with file and row for a row that does not fit its schema, [`TrainError::Data`] for a file that
/// cannot be read or leaves nothing to train on.
pub fn prepare(
    job: &Job,
    resolver: &dyn Resolver,
    text: &ModelText,
    folder: &Path,
    observer: &dyn Observer,
) -> Result<Option<Prepared>, TrainError> {
    let named = std::iter::once(&job.data.train).chain(&job.data.eval);
    let sources: Vec<(String, String)> =
        named.map(|name| Ok((name.name().to_owned(), digest(name, resolver)?))).collect::<Result<_, _>>()?;
    let key = key(job, &sources, text)?;
    let home = folder.join("data");
    let manifest = match Manifest::read(&home).filter(|manifest| manifest.key == key) {
        Some(manifest) => manifest,
        None => match write(job, resolver, text, folder, &home, key, observer)? {
            Some(manifest) => manifest,
            None => return Ok(None),
        },
    };
    let max_tokens = job.data.max_tokens;
    let packing = job.data.packing.then_some(max_tokens);
    let mut notes = vec![format!("{}: {}", job.data.train.name(), manifest.train.counts.describe(max_tokens))];
    let arrangement = Arrangement::training(&job.optim, job.seed, job.data.shuffle, packing);
    let train = Batches::new(Cache::open(&home, "train")?, arrangement, &manifest.train.digest);
    let eval = match &manifest.eval {
        None => None,
        Some(side) => {
            let name = job.data.eval.as_ref().map_or("held out", DataName::name);
            notes.push(format!("{name}: {}", side.counts.describe(max_tokens)));
            Some(Batches::new(Cache::open(&home, "eval")?, Arrangement::evaluation(&job.optim, packing), &side.digest))
        }
    };
    let questions = if job.eval.samples > 0 { questions::read(&home)? } else { Vec::new() };
    Ok(Some(Prepared { train, eval, questions, labels: manifest.labels, notes, sources }))
}

/// What lies in the folder, written last.
#[derive(Serialize, Deserialize)]
struct Manifest {
    key: String,
    labels: Vec<String>,
    train: Side,
    eval: Option<Side>,
}

#[derive(Serialize, Deserialize)]
struct Side {
    counts: Counts,
    /// Sha256 over the examples.
    digest: [u8; 32],
}

impl Manifest {
    /// `None` where there is none that can be read: then it is written anew.
    fn read(home: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(home.join("manifest.json")).ok()?).ok()
    }
}

/// Sha256 of a file or of inline rows, in hex.
pub(crate) fn digest(name: &DataName, resolver: &dyn Resolver) -> Result<String, TrainError> {
    Ok(text::hex(&rows::digest(name, resolver)?))
}

/// The digest of all that the examples depend on.
fn key(job: &Job, sources: &[(String, String)], text: &ModelText) -> Result<String, TrainError> {
    let mut hasher = Sha256::new();
    let spec = serde_json::to_string(&job.data).map_err(|e| failed(e.into()))?;
    let labels = job.classify.as_ref().map(|classify| &classify.labels);
    hasher.update(format!(
        "{VERSION} {} {} {spec} {labels:?} {} {}",
        job.method, job.seed, job.eval.rows, job.eval.samples
    ));
    hasher.update(text.digest());
    sources.iter().for_each(|(_, digest)| hasher.update(digest));
    Ok(text::hex(&hasher.finalize()))
}

fn write(
    job: &Job,
    resolver: &dyn Resolver,
    text: &ModelText,
    folder: &Path,
    home: &Path,
    key: String,
    observer: &dyn Observer,
) -> Result<Option<Manifest>, TrainError> {
    let partial = folder.join("data.partial");
    for old in [&partial, home] {
        match std::fs::remove_dir_all(old) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
    std::fs::create_dir_all(&partial).map_err(failed)?;
    let labels = match &job.classify {
        Some(classify) if classify.labels.is_empty() => collect_labels(job, resolver)?,
        Some(classify) => classify.labels.clone(),
        None => Vec::new(),
    };
    let encoder = Encoder { text, spec: &job.data, labels: &labels };
    let mut train = SideWriter::create(&partial, "train")?;
    let mut eval = match job.data.eval.is_some() || job.data.eval_split > 0.0 {
        true => Some(SideWriter::create(&partial, "eval")?),
        false => None,
    };
    let mut questions = Vec::new();
    let mut watch = Watch { observer, rows: 0, told: Instant::now() };
    for (i, name) in std::iter::once(&job.data.train).chain(&job.data.eval).enumerate() {
        let all = each_row(job, name, resolver, |row, value| {
            watch.row(name)?;
            let held_out = i == 1 || split::held_out(value, &job.data, job.seed);
            let side = eval.as_mut().filter(|_| held_out).unwrap_or(&mut train);
            if held_out && job.eval.rows > 0 && side.counts.rows >= job.eval.rows as u64 {
                return Ok(());
            }
            if held_out && questions.len() < job.eval.samples {
                questions.extend(encoder.question(&row, value).map_err(Refusal::Row)?);
            }
            for example in encoder.examples(row, &mut side.counts).map_err(Refusal::Row)? {
                side.writer.push(&example).map_err(Refusal::Other)?;
            }
            Ok(())
        })?;
        if !all {
            return Ok(None);
        }
    }
    let train = train.finish(job.data.train.name(), "to train on")?;
    let eval_name = job.data.eval.as_ref().unwrap_or(&job.data.train).name();
    let eval = eval.map(|side| side.finish(eval_name, "to evaluate on")).transpose()?;
    if job.eval.samples > 0 {
        if questions.is_empty() {
            return Err(rows::refuse(eval_name, "holds no prompt for eval.samples"));
        }
        questions::write(&partial, &questions).map_err(failed)?;
    }
    let manifest = Manifest { key, labels, train, eval };
    let json = serde_json::to_vec(&manifest).map_err(|e| failed(e.into()))?;
    std::fs::write(partial.join("manifest.json"), json).map_err(failed)?;
    std::fs::rename(&partial, home).map_err(failed)?;
    Ok(Some(manifest))
}

/// Tells how far the reading is, and asks whether to go on.
struct Watch<'a> {
    observer: &'a dyn Observer,
    rows: u64,
    told: Instant,
}

impl Watch<'_> {
    fn row(&mut self, name: &DataName) -> Result<(), Refusal> {
        if self.rows.is_multiple_of(WATCHED) {
            if self.observer.command() != Command::Continue {
                return Err(Refusal::Enough);
            }
            if self.told.elapsed() >= TELLING {
                self.told = Instant::now();
                self.observer.note(&format!("{}: {} rows read", name.name(), self.rows));
            }
        }
        self.rows += 1;
        Ok(())
    }
}

struct SideWriter {
    writer: CacheWriter,
    counts: Counts,
}

impl SideWriter {
    fn create(folder: &Path, name: &str) -> Result<Self, TrainError> {
        Ok(Self { writer: CacheWriter::create(folder, name)?, counts: Counts::default() })
    }

    fn finish(self, name: &str, purpose: &str) -> Result<Side, TrainError> {
        if self.writer.count() == 0 {
            let reason = format!("leaves no example {purpose}, of {} rows", self.counts.rows);
            return Err(rows::refuse(name, reason));
        }
        Ok(Side { counts: self.counts, digest: self.writer.finish()? })
    }
}

/// Why a row ended the reading.
enum Refusal {
    Row(String),
    Other(TrainError),
    /// Nothing is wrong.
    Enough,
}

/// Reads the typed rows of a file; the first one decides its format where the job names none. False if `take` had enough
/// before the end.
fn each_row(
    job: &Job,
    name: &DataName,
    resolver: &dyn Resolver,
    mut take: impl FnMut(schema::Row, &serde_json::Value) -> Result<(), Refusal>,
) -> Result<bool, TrainError> {
    let mut format: Option<Format> = job.data.format;
    for row in rows::open(name, &job.data, resolver)? {
        let row = row?;
        let refuse = |reason: String| rows::refuse_row(name.name(), row.number, reason);
        let format = match format {
            Some(format) => format,
            None => {
                let found = schema::detect(&row.value, &job.data, job.method.formats()).map_err(refuse)?;
                *format.insert(found)
            }
        };
        let typed = schema::read(&row.value, &job.data, format).map_err(refuse)?;
        match take(typed, &row.value) {
            Ok(()) => {}
            Err(Refusal::Row(reason)) => return Err(refuse(reason)),
            Err(Refusal::Other(error)) => return Err(error),
            Err(Refusal::Enough) => return Ok(false),
        }
    }
    Ok(true)
}

/// Hands over the texts of the training data, held-out rows left aside, until `take` has enough.
pub fn each_text(job: &Job, resolver: &dyn Resolver, take: &mut dyn FnMut(String) -> bool) -> Result<(), TrainError> {
    each_row(job, &job.data.train, resolver, |row, value| {
        if split::held_out(value, &job.data, job.seed) {
            return Ok(());
        }
        let enough = row.texts().into_iter().any(|text| !take(text));
        if enough { Err(Refusal::Enough) } else { Ok(()) }
    })?;
    Ok(())
}

/// The labels that occur, sorted.
fn collect_labels(job: &Job, resolver: &dyn Resolver) -> Result<Vec<String>, TrainError> {
    debug_assert_eq!(job.method, Method::Classify);
    let mut labels = BTreeSet::new();
    for name in std::iter::once(&job.data.train).chain(&job.data.eval) {
        each_row(job, name, resolver, |row, _| {
            if let schema::Row::Classify { label, .. } = row {
                labels.insert(label);
            }
            if labels.len() > MAX_LABELS { Err(Refusal::Row(format!("more than {MAX_LABELS} labels"))) } else { Ok(()) }
        })?;
    }
    Ok(labels.into_iter().collect())
}

fn failed(error: std::io::Error) -> TrainError {
    TrainError::Io { stage: "keeping tokenized data", source: error.into() }
}

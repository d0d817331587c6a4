//! What a run needs to go on as if nothing had happened, written atomically.
//!
//! ```text
//! checkpoints/step-00000050/
//!   weights.safetensors   trained parameters, f32        moments.safetensors   the optimizer's, f32
//!   state.json            counters and identity          model/                what can be served
//!   manifest.json         size and sha256 of each file above: written last
//! ```
//!
//! Order of a save: files, fsync; manifest, fsync; rename from `.tmp`; fsync of the folder above; then what is
//! superseded goes. Invariant: a folder of this name with a manifest that fits is whole; everything else is debris and
//! is never loaded. Random draws are functions of seed and step, so there is no generator to keep, and the data's
//! position is the step.

mod manifest;
mod tensors;

use manifest::Manifest;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use stockade_core::train::{Saved, TrainError};

pub use tensors::{read_tensors, write_tensors};

const PREFIX: &str = "step-";
const UNFINISHED: &str = ".tmp";

/// Everything of a run's position that is not a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub identity: Identity,
    /// What computed it: version and kernels. Others may round differently.
    #[serde(default)]
    pub program: String,
    /// Steps that are done.
    pub step: u64,
    /// Of those, steps that moved the weights.
    pub applied: u64,
    /// Steps in a row, up to this one, whose gradient was not finite.
    pub skipped_in_row: u64,
    /// Trained on so far.
    pub tokens: u64,
    /// Of the last step whose loss was finite.
    #[serde(with = "exact")]
    pub loss: f64,
    /// Of the newest evaluation.
    #[serde(default)]
    pub evaluation: Option<Evaluated>,
    #[serde(default)]
    pub best: Option<Evaluated>,
    /// Evaluations since the best one.
    pub without_better: u64,
}

impl State {
    /// Before the first step.
    pub fn start(identity: Identity, program: String) -> Self {
        Self {
            identity,
            program,
            step: 0,
            applied: 0,
            skipped_in_row: 0,
            tokens: 0,
            loss: 0.0,
            evaluation: None,
            best: None,
            without_better: 0,
        }
    }

    /// What an observer hears of the checkpoint in `path`.
    pub fn saved(&self, path: &Path) -> Saved {
        let evaluated = self.evaluation.filter(|evaluation| evaluation.step == self.step);
        Saved { step: self.step, path: path.join("model"), eval_loss: evaluated.map(|evaluated| evaluated.loss) }
    }
}

/// The loss on the evaluation data after so many steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    pub step: u64,
    #[serde(with = "exact")]
    pub loss: f64,
    /// What evaluations are compared by, lower is better: the loss, or what `eval.best_by` names.
    #[serde(with = "exact")]
    pub judged: f64,
}

/// Numbers that come back bit for bit: as texts, since a JSON reader may round.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a run is a function of, as sha256 in hex. A checkpoint of another identity is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The job with every default filled in, without what only says where results go.
    pub job: String,
    /// The base model's weights, or the configuration of one from scratch.
    pub base: String,
    pub data: String,
    #[serde(default)]
    pub evaluation: Option<String>,
}

impl Identity {
    /// Refuses to go on from a checkpoint of `was`, naming what differs.
    pub fn same_as(&self, was: &Self) -> Result<(), TrainError> {
        let none = || "none".to_owned();
        let pairs = [
            ("the job", &self.job, &was.job),
            ("the base model", &self.base, &was.base),
            ("the data", &self.data, &was.data),
            (
                "the evaluation data",
                &self.evaluation.clone().unwrap_or_else(none),
                &was.evaluation.clone().unwrap_or_else(none),
            ),
        ];
        match pairs.into_iter().find(|(_, is, was)| is != was) {
            Some((what, is, was)) => Err(TrainError::Changed { what, was: was.clone(), is: is.clone() }),
            None => Ok(()),
        }
    }
}

/// The checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// A checkpoint that was found whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub path: PathBuf,
    pub state: State,
}

impl Checkpoints {
    /// Those in `folder`, which is made. What a crash left unfinished is removed.
    pub fn open(folder: &Path) -> Result<Self, TrainError> {
        let at = |source| failed("checkpoints", source);
        fs::create_dir_all(folder).map_err(at)?;
        for entry in fs::read_dir(folder).map_err(at)? {
            let path = entry.map_err(at)?.path();
            if path.extension().is_some_and(|extension| extension == &UNFINISHED[1..]) {
                fs::remove_dir_all(&path).map_err(at)?;
            }
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The newest checkpoint that is whole; `note` hears of each that is not.
    pub fn newest(&self, note: &dyn Fn(&str)) -> Result<Option<Found>, TrainError> {
        let mut steps = self.steps()?;
        steps.sort_unstable();
        for step in steps.into_iter().rev() {
            match self.load(step) {
                Ok(found) => return Ok(Some(found)),
                Err(error) => note(&format!("checkpoint of step {step} is not whole and is passed over: {error}")),
            }
        }
        Ok(None)
    }

    /// The checkpoint of a step, if it is whole.
    pub fn load(&self, step: u64) -> io::Result<Found> {
        let path = self.path(step);
        Manifest::read(&path)?.verify(&path)?;
        let state: State = serde_json::from_slice(&fs::read(path.join("state.json"))?)?;
        if state.step != step {
            return Err(io::Error::other(format!("it is of step {}", state.step)));
        }
        Ok(Found { path, state })
    }

    /// What a job's observer has been told of each checkpoint that is still there, by step. Digests are not looked at.
    pub fn saved(&self) -> Result<Vec<Saved>, TrainError> {
        let mut steps = self.steps()?;
        steps.sort_unstable();
        let all = steps.into_iter().filter_map(|step| {
            let path = self.path(step);
            let state: State = serde_json::from_slice(&fs::read(path.join("state.json")).ok()?).ok()?;
            Some(state.saved(&path))
        });
        Ok(all.collect())
    }

    /// Saves a step: `write` puts the files of tensors and what can be served into the folder that it is given.
    ///
    /// # Errors
    /// Whatever `write` or the disk fails with. Nothing is left of such a save, and earlier checkpoints stay.
    pub fn save(&self, state: &State, write: &dyn Fn(&Path) -> Result<(), TrainError>) -> Result<PathBuf, TrainError> {
        let path = self.path(state.step);
        let unfinished = path.with_extension(&UNFINISHED[1..]);
        let result = self.write(state, &path, &unfinished, write);
        if result.is_err() {
            // The save has failed already; debris that stays is removed when the run is next opened.
            let _ = fs::remove_dir_all(&unfinished);
        }
        result.map(|()| path)
    }

    fn write(
        &self,
        state: &State,
        path: &Path,
        unfinished: &Path,
        write: &dyn Fn(&Path) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let at = |source| failed("checkpoint", source);
        for old in [unfinished, path] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(at)?;
            }
        }
        fs::create_dir(unfinished).map_err(at)?;
        write(unfinished)?;
        let state = serde_json::to_vec_pretty(state).map_err(|error| at(error.into()))?;
        fs::write(unfinished.join("state.json"), state).map_err(at)?;
        Manifest::seal(unfinished).map_err(at)?;
        fs::rename(unfinished, path).map_err(at)?;
        sync_folder(&self.folder).map_err(at)
    }

    /// Removes all but the newest `keep` and that of the step `best`.
    pub fn prune(&self, keep: usize, best: Option<u64>) -> Result<(), TrainError> {
        let mut steps = self.steps()?;
        steps.sort_unstable_by(|a, b| b.cmp(a));
        for step in steps.into_iter().skip(keep.max(1)).filter(|step| Some(*step) != best) {
            fs::remove_dir_all(self.path(step)).map_err(|source| failed("checkpoints", source))?;
        }
        Ok(())
    }

    /// Steps that have a folder, whole or not.
    pub fn steps(&self) -> Result<Vec<u64>, TrainError> {
        let at = |source| failed("checkpoints", source);
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(at)? {
            let name = entry.map_err(at)?.file_name();
            steps.extend(
                name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|step| step.parse::<u64>().ok()),
            );
        }
        Ok(steps)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step:08}"))
    }
}

/// Writes a file whole or not at all, durably.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(crate) fn failed(stage: &'static str, source: io::Error) -> TrainError {
    TrainError::Io { stage, source: source.into() }
}

#[cfg(test)]
mod tests;

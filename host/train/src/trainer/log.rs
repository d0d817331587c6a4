//! `metrics.jsonl`: a line for each step, each step once.

use crate::checkpoint::{failed, write_atomically};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use stockade_core::train::{StepMetrics, TrainError};

/// Longest line that is taken for one.
const MAX_LINE_BYTES: u64 = 1 << 20;

pub(super) struct Log {
    file: File,
    /// Bytes of whole lines.
    length: u64,
}

impl Log {
    /// Opens the log of a run that goes on after `step`: lines of later steps, which the run will make again, and what a
    /// crash left of a line are dropped.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let open = || -> io::Result<Self> {
            if path.exists() {
                write_atomically(path, &kept(path, step)?)?;
            }
            let file = File::options().create(true).append(true).open(path)?;
            Ok(Self { length: file.metadata()?.len(), file })
        };
        open().map_err(|e| failed("metrics", e))
    }

    /// One write for a line, so that readers see it whole. Nothing stays of one that fails.
    pub fn write(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(metrics).map_err(|e| failed("metrics", e.into()))?;
        line.push(b'\n');
        let written = self.file.write_all(&line).or_else(|error| self.file.set_len(self.length).and(Err(error)));
        written.map_err(|e| failed("metrics", e))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Makes it durable: a checkpoint's steps must all be here.
    pub fn sync(&mut self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(|e| failed("metrics", e))
    }
}

/// The lines of steps up to `step`, each once.
fn kept(path: &Path, step: u64) -> io::Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let mut reader = BufReader::new(File::open(path)?);
    let (mut kept, mut line, mut last) = (Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        if io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(kept);
        }
        let of = serde_json::from_slice::<Line>(&line).ok().filter(|_| line.ends_with(b"\n")).map(|line| line.step);
        if let Some(of) = of.filter(|&of| of > last && of <= step) {
            kept.extend_from_slice(&line);
            last = of;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(step: u64) -> StepMetrics {
        StepMetrics {
            step,
            steps: 9,
            loss: 1.5,
            lr: 0.1,
            grad_norm: 1.0,
            tokens: 8,
            tokens_per_second: 1.0,
            eval_loss: None,
            samples: Vec::new(),
            more: serde_json::Map::new(),
        }
    }

    #[test]
    fn each_step_stands_once_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let steps = || -> Vec<u64> {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().map(|line| serde_json::from_str::<StepMetrics>(line).unwrap().step).collect()
        };
        let mut log = Log::open(&path, 0).unwrap();
        (1..=4).for_each(|step| log.write(&metrics(step)).unwrap());
        log.file.write_all(br#"{"step":5,"lo"#).unwrap();
        let mut log = Log::open(&path, 3).unwrap();
        assert_eq!(steps(), [1, 2, 3]);
        (4..=5).for_each(|step| log.write(&metrics(step)).unwrap());
        log.sync().unwrap();
        assert_eq!(steps(), [1, 2, 3, 4, 5]);
        drop(Log::open(&path, 0).unwrap());
        assert!(steps().is_empty(), "a run from the start has an empty log");
    }
}

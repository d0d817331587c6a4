//! Answers by the host's own engine, with the weights as they are.
//!
//! The weights go through a folder, as everything does that the engine serves: an adapter is a few files beside a base
//! that stays loaded; a model that is trained whole is written and read again for each batch of prompts. Refused: a
//! second decoder inside the training network, which would have to batch, page and sample on its own.

use super::run::Export;
use crate::network::Network;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use stockade_core::event::{Event, FinishReason};
use stockade_core::id::{ModelId, TenantId};
use stockade_core::infer::{EventStream, GenerateRequest, Inference, Prompt, Sampling};
use stockade_core::train::TrainError;
use stockade_infer::{Engine, ModelOptions, Settings};

/// An answer to a prompt.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Completion {
    /// The token that ended it included, where the sampling goes on after such tokens.
    pub tokens: Vec<u32>,
    /// Without control tokens.
    pub text: String,
    /// It was cut where the longest answer ends.
    pub truncated: bool,
}

/// Continues prompts with a network's weights.
pub trait Sampler {
    /// Takes the weights as they are now.
    fn take(&self, network: &Network) -> Result<(), TrainError>;

    /// An answer to each prompt, in order, by the weights that were last taken; a function of weights, prompts, seeds and
    /// `sampling`, whose own seed is not used.
    fn sample(&self, prompts: &[&[u32]], seeds: &[u64], sampling: &Sampling) -> Result<Vec<Completion>, TrainError>;
}

/// Sequences that the engine runs at once.
const MAX_RUNNING: usize = 32;
const BASE: &str = "base";
const POLICY: &str = "policy";

/// The host's engine as a sampler.
pub struct EngineSampler<'a> {
    engine: Engine,
    /// Where weights go on their way.
    folder: PathBuf,
    export: &'a Export<'a>,
    options: ModelOptions,
    /// Of the model, in tokens.
    context: usize,
    ends: BTreeSet<u32>,
}

impl<'a> EngineSampler<'a> {
    /// `export` writes a model or, where `base` is set, an adapter to it, in f32: a rounded policy would be another one.
    /// An answer ends with one of `ends` and has at most `longest` tokens.
    pub fn new(
        folder: PathBuf,
        base: Option<&Path>,
        export: &'a Export<'a>,
        context: usize,
        ends: &[u32],
        longest: usize,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let engine = Engine::new(Settings {
            threads: (threads > 0).then_some(threads),
            max_waiting: usize::MAX,
            max_waiting_per_tenant: usize::MAX,
            max_running: MAX_RUNNING,
            // Streams are read one after the other: a sequence must not wait for its reader.
            stream_events: 2 * longest + 16,
            ..Settings::default()
        });
        let mut options = ModelOptions::default();
        if let Some(base) = base {
            engine.load_model(id(BASE), base, &options, &|_, _| ()).map_err(failed)?;
            options.base = Some(BASE.to_owned());
        }
        Ok(Self { engine, folder, export, options, context, ends: ends.iter().copied().collect() })
    }

    fn submit(&self, prompt: &[u32], seed: u64, sampling: &Sampling) -> Result<EventStream, TrainError> {
        let left = self.context.saturating_sub(prompt.len());
        let longest = sampling.max_tokens.map_or(left, |longest| left.min(longest as usize));
        if longest == 0 {
            let reason = format!("a prompt of {} tokens leaves no room for an answer", prompt.len());
            return Err(TrainError::Data { name: "prompts".into(), reason });
        }
        let sampling =
            Sampling { max_tokens: Some(longest as u32), seed: Some(seed), logprobs: Some(0), ..sampling.clone() };
        let request = GenerateRequest {
            model: id(POLICY),
            tenant: TenantId::new("trainer").expect("a valid name"),
            prompt: Prompt::Tokens(prompt.to_vec()),
            sampling,
            constraint: None,
        };
        self.engine.generate(request).map_err(failed)
    }

    /// Reads an answer up to its end; dropping the stream then cancels the rest.
    fn read(&self, mut stream: EventStream) -> Result<Completion, TrainError> {
        let mut completion = Completion { truncated: true, ..Completion::default() };
        'answer: while let Some(event) = stream.blocking_recv() {
            match event.map_err(failed)? {
                Event::Text(delta) => {
                    for token in delta.logprobs {
                        completion.tokens.push(token.id);
                        if self.ends.contains(&token.id) {
                            completion.truncated = false;
                            break 'answer;
                        }
                    }
                }
                Event::End(end) => completion.truncated = end.reason == FinishReason::Length,
                _ => {}
            }
        }
        let ended = completion.tokens.last().is_some_and(|last| self.ends.contains(last));
        let told = completion.tokens.len() - usize::from(ended);
        completion.text = self.engine.detokenize(&id(POLICY), &completion.tokens[..told]).map_err(failed)?;
        Ok(completion)
    }
}

impl Sampler for EngineSampler<'_> {
    fn take(&self, network: &Network) -> Result<(), TrainError> {
        let policy = id(POLICY);
        self.engine.remove(&policy);
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).map_err(failed)?;
        }
        (self.export)(network, &self.folder)?;
        self.engine.load_model(policy, &self.folder, &self.options, &|_, _| ()).map_err(failed)?;
        Ok(())
    }

    fn sample(&self, prompts: &[&[u32]], seeds: &[u64], sampling: &Sampling) -> Result<Vec<Completion>, TrainError> {
        let streams: Vec<EventStream> = prompts
            .iter()
            .zip(seeds)
            .map(|(prompt, seed)| self.submit(prompt, *seed, sampling))
            .collect::<Result<_, _>>()?;
        streams.into_iter().map(|stream| self.read(stream)).collect()
    }
}

impl Drop for EngineSampler<'_> {
    fn drop(&mut self) {
        // Scratch: what cannot be removed harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn id(name: &str) -> ModelId {
    ModelId::new(name).expect("a valid name")
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> TrainError {
    TrainError::Io { stage: "rollouts", source: error.into() }
}

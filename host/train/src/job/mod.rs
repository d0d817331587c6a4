//! The job file: what is to be trained, from what, how.
//!
//! Read from TOML or, of the same shape, from JSON. Every number has bounds, every default is filled in, unknown keys
//! are refused by path. What a job means is told with its fields, here and in the modules.
//!
//! Invariant: `Job::from_json(&job.to_json())` and `Job::from_toml(&job.to_toml())` are `job`.

mod data;
mod eval;
mod methods;
mod model;
mod optim;
mod read;
#[cfg(test)]
mod tests;

pub use data::{DataName, DataSpec, Documents, Format, MAX_ROW_TOKENS, OnLong};
pub use eval::{EvalSpec, label};
pub use methods::{
    ClassifySpec, DpoLoss, DpoSpec, EmbedPooling, EmbedSpec, GrpoLoss, GrpoSpec, IpoSpec, KtoSpec, Method, OrpoSpec,
    Reduction, RewardSpec, RewardWeight, ScaleRewards, SimpoSpec,
};
pub use model::{AdapterKind, AdapterSpec, ModelSpec, NewTokenizer, TARGETS};
pub use optim::{
    CheckpointSpec, Device, Dtype, MAX_STEPS, MuonIteration, MuonScale, MuonSpec, OptimSpec, OptimizerKind,
    OutputFormat, OutputSpec, Precision, Schedule,
};
pub use read::Named;
pub(crate) use read::named;

use read::Section;
use serde::Serialize;
use serde_json::Value;
use stockade_core::train::{Outline, TrainError};

/// Longest job file in bytes.
const MAX_FILE_BYTES: usize = 16 << 20;

/// A checked job. A method's own section is set exactly where it is the job's method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    pub method: Method,
    /// Of every random draw; below 2^63, which is as far as TOML counts.
    pub seed: u64,
    pub model: ModelSpec,
    pub data: DataSpec,
    pub optim: OptimSpec,
    pub checkpoint: CheckpointSpec,
    pub eval: EvalSpec,
    pub output: OutputSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpo: Option<DpoSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipo: Option<IpoSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kto: Option<KtoSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orpo: Option<OrpoSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simpo: Option<SimpoSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<RewardSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpo: Option<GrpoSpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classify: Option<ClassifySpec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed: Option<EmbedSpec>,
}

impl Job {
    /// # Errors
    /// [`TrainError::Spec`] with the path of what is wrong; for TOML that does not parse, its line.
    pub fn from_toml(text: &str) -> Result<Self, TrainError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(TrainError::spec("job", format!("{} bytes exceed the limit of {MAX_FILE_BYTES}", text.len())));
        }
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| TrainError::spec("job", e.to_string()))?;
        let value = serde_json::to_value(table).map_err(|e| TrainError::spec("job", e.to_string()))?;
        Self::from_json(&value)
    }

    /// # Errors
    /// [`TrainError::Spec`] with the path of what is wrong.
    pub fn from_json(value: &Value) -> Result<Self, TrainError> {
        let mut root = Section::root(value)?;
        let method: Method = root.choice("method")?.ok_or_else(|| root.refuse("method", "is missing"))?;
        let model = model::read(root.section("model")?)?;
        match (method, &model.base) {
            (Method::Pretrain | Method::Sft, _) | (_, Some(_)) => {}
            (_, None) => {
                return Err(TrainError::spec("model.base", format!("is missing; `{method}` goes on from one")));
            }
        }
        if method == Method::Pretrain && model.adapter.is_some() {
            return Err(TrainError::spec("model.adapter", "`pretrain` trains all weights; `continue` takes adapters"));
        }
        let adapter = model.adapter.is_some();
        let checkpoint = optim::read_checkpoint(root.section("checkpoint")?)?;
        let data = data::read(root.section("data")?, method)?;
        let eval = eval::read(root.section("eval")?, checkpoint.every, method, &data)?;
        let job = Self {
            seed: root.integer("seed", 0..=i64::MAX as u64)?.unwrap_or(1),
            optim: optim::read(root.section("optim")?, method, adapter)?,
            output: optim::read_output(root.section("output")?, method, adapter)?,
            dpo: own(&mut root, method, Method::Dpo, methods::dpo)?,
            ipo: own(&mut root, method, Method::Ipo, methods::ipo)?,
            kto: own(&mut root, method, Method::Kto, methods::kto)?,
            orpo: own(&mut root, method, Method::Orpo, methods::orpo)?,
            simpo: own(&mut root, method, Method::Simpo, methods::simpo)?,
            reward: own(&mut root, method, Method::Reward, methods::reward)?,
            grpo: own(&mut root, method, Method::Grpo, methods::grpo)?,
            classify: own(&mut root, method, Method::Classify, methods::classify)?,
            embed: own(&mut root, method, Method::Embed, methods::embed)?,
            method,
            model,
            data,
            checkpoint,
            eval,
        };
        root.finish()?;
        if adapter && !job.output.merge && (job.model.tokenizer.is_some() || job.model.new_tokenizer.is_some()) {
            let reason =
                "an adapter speaks its base's tokens; with `output.merge` or without adapter it can be another's";
            return Err(TrainError::spec("model.tokenizer", reason));
        }
        Ok(job)
    }

    /// The job with every default filled in.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("a job is made of texts, numbers and JSON")
    }

    /// [`Self::to_json`] as a job file.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a job holds no null and no number that TOML lacks")
    }

    pub fn outline(&self) -> Outline {
        let named = |data: &DataName| match data {
            DataName::Named(name) => Some(name.clone()),
            DataName::Rows(_) => None,
        };
        Outline {
            method: self.method.to_string(),
            base: self.model.base.clone(),
            data: std::iter::once(&self.data.train).chain(&self.data.eval).filter_map(named).collect(),
            steps: self.optim.steps,
            output: self.output.name.clone(),
            rewards: self.grpo.iter().flat_map(|g| &g.rewards).map(|reward| reward.component.clone()).collect(),
            evaluators: self.eval.evaluators.clone(),
            effective: self.to_json(),
        }
    }
}

/// The section of `owner`, which the method of the job must be.
fn own<T>(
    root: &mut Section<'_>,
    method: Method,
    owner: Method,
    read: impl Fn(Section<'_>) -> Result<T, TrainError>,
) -> Result<Option<T>, TrainError> {
    let section = root.section(owner.name())?;
    if method == owner {
        return read(section).map(Some);
    }
    if section.present() {
        return Err(TrainError::spec(owner.name(), format!("belongs to method `{owner}`; this job's is `{method}`")));
    }
    Ok(None)
}

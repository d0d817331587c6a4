//! `adapter_config.json` of the PEFT library.
//!
//! PEFT gains settings with every release, and most of them change what is computed. So a setting that is not known
//! here must be off (`null`, `false` or empty); otherwise the adapter is refused by that setting's name.

use super::{CONFIG_FILE, MAX_RANK};
use crate::ModelError;
use crate::checkpoint::read_small;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Settings that say how the adapter was made, or what its tensors' names say again.
const WITHOUT_EFFECT: [&str; 17] = [
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
];

/// What the configuration of an adapter says.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// The base's name or path, as whoever made the adapter knew it.
    pub base: Option<String>,
    pub rank: usize,
    pub alpha: f64,
    /// The scale is `alpha / sqrt(r)` instead of `alpha / r`.
    pub rank_stabilised: bool,
    /// DoRA: each output has a magnitude of its own.
    pub decomposed: bool,
    /// It has a head of its own, `score`, which is not computed beside a base: such an adapter is merged.
    pub has_head: bool,
    /// Modules, by the end of their names, whose rank or alpha differs.
    ranks: Vec<(String, f64)>,
    alphas: Vec<(String, f64)>,
    file: PathBuf,
}

impl AdapterConfig {
    /// Reads `folder/adapter_config.json`.
    ///
    /// # Errors
    /// A file that is no such configuration, and every setting that would be computed wrongly.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let file = folder.join(CONFIG_FILE);
        let json: Value =
            serde_json::from_slice(&read_small(&file)?).map_err(|e| ModelError::damaged(&file, e.to_string()))?;
        match json {
            Value::Object(settings) => Self::read(file, settings),
            _ => Err(ModelError::damaged(&file, "not a JSON object")),
        }
    }

    fn read(file: PathBuf, mut settings: Map<String, Value>) -> Result<Self, ModelError> {
        let refuse = |what, found: &Value| Err(ModelError::unsupported(&file, what, found.to_string()));
        let damaged = |key: &str, found: &Value| ModelError::damaged(&file, format!("`{key}` is {found}"));
        let mut take = |key: &str| settings.remove(key).unwrap_or(Value::Null);

        let kind = take("peft_type");
        if kind != "LORA" {
            return refuse("peft_type", &kind);
        }
        let initial = take("init_lora_weights");
        if !matches!(&initial, Value::Null | Value::Bool(_))
            && !["gaussian", "orthogonal", "eva"].contains(&initial.as_str().unwrap_or(""))
        {
            // The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) take a part out of the base's weights.
            return refuse("an adapter of changed base weights, init_lora_weights", &initial);
        }
        let bias = take("bias");
        if !(bias.is_null() || bias == "none") {
            return refuse("bias", &bias);
        }
        let base = match take("base_model_name_or_path") {
            Value::Null => None,
            Value::String(name) => Some(name).filter(|name| !name.is_empty()),
            other => return Err(damaged("base_model_name_or_path", &other)),
        };
        let mut flag = |key: &str| match take(key) {
            Value::Null => Ok(false),
            Value::Bool(on) => Ok(on),
            other => Err(damaged(key, &other)),
        };
        let (rank_stabilised, decomposed) = (flag("use_rslora")?, flag("use_dora")?);
        let (rank, alpha) = (take("r"), take("lora_alpha"));
        let good_rank = |n: &u64| (1..=MAX_RANK as u64).contains(n);
        let rank = rank.as_u64().filter(good_rank).ok_or_else(|| damaged("r", &rank))? as usize;
        let alpha = alpha.as_f64().filter(|a| a.is_finite()).ok_or_else(|| damaged("lora_alpha", &alpha))?;
        let mut pattern = |key: &'static str| match take(key) {
            Value::Null => Ok(Vec::new()),
            Value::Object(entries) => entries
                .into_iter()
                .map(|(module, value)| {
                    // PEFT takes regular expressions; names are what occurs, and all that is read here.
                    if !module.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.') {
                        return Err(ModelError::unsupported(&file, "the expression in a pattern,", module));
                    }
                    let number = value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| damaged(key, &value))?;
                    Ok((module, number))
                })
                .collect(),
            other => Err(damaged(key, &other)),
        };
        let (ranks, alphas) = (pattern("rank_pattern")?, pattern("alpha_pattern")?);
        let has_head = match take("modules_to_save") {
            Value::Null => false,
            Value::Array(names) if names.iter().all(|name| name == "score") => !names.is_empty(),
            other => return refuse("modules_to_save", &other),
        };
        let is_off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            _ => false,
        };
        match settings.iter().find(|(key, value)| !WITHOUT_EFFECT.contains(&key.as_str()) && !is_off(value)) {
            Some((key, value)) => {
                let found: String = format!("{key} = {value}").chars().take(200).collect();
                Err(ModelError::unsupported(&file, "the setting", found))
            }
            None => Ok(Self { base, rank, alpha, rank_stabilised, decomposed, has_head, ranks, alphas, file }),
        }
    }

    /// The rank that `module` (`model.layers.0.self_attn.q_proj`) must have.
    pub(super) fn rank_of(&self, module: &str) -> Result<usize, ModelError> {
        let rank = self.own(&self.ranks, module)?.unwrap_or(self.rank as f64);
        if rank.fract() != 0.0 || !(1.0..=MAX_RANK as f64).contains(&rank) {
            return Err(ModelError::damaged(&self.file, format!("`{module}` has rank {rank}, not 1 to {MAX_RANK}")));
        }
        Ok(rank as usize)
    }

    /// What `B A x` is multiplied with in `module`.
    pub fn scale_of(&self, module: &str) -> Result<f32, ModelError> {
        let alpha = self.own(&self.alphas, module)?.unwrap_or(self.alpha);
        let rank = self.rank_of(module)? as f64;
        Ok((alpha / if self.rank_stabilised { rank.sqrt() } else { rank }) as f32)
    }

    /// The value that a pattern has for a module: the one whose name is the end of the module's.
    fn own(&self, pattern: &[(String, f64)], module: &str) -> Result<Option<f64>, ModelError> {
        let fits = |name: &str| module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let mut found = pattern.iter().filter(|(name, _)| fits(name)).map(|(_, value)| *value);
        let first = found.next();
        match found.find(|other| Some(*other) != first) {
            Some(_) => {
                Err(ModelError::damaged(&self.file, format!("its patterns give `{module}` more than one value")))
            }
            None => Ok(first),
        }
    }
}

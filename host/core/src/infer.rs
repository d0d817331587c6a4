//! The inference seam: everything that needs a model. Called by `gateway` for HTTP clients and by `runtime` for
//! guests; implemented by `infer`.

use crate::chat::{Message, ToolChoice, ToolSpec};
use crate::error::{BoxError, BoxFuture, Fault};
use crate::event::{Event, TokenLogprob};
use crate::id::{Digest, ModelId, TenantId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A generation's events in order. Dropping the receiver cancels: its KV pages are free again before the next step.
pub type EventStream = tokio::sync::mpsc::Receiver<Result<Event, InferError>>;

/// Probability by class name.
pub type ClassScores = Vec<(String, f32)>;

/// The models a host serves. Methods that return futures queue at once; dropping a future or stream cancels.
pub trait Inference: Send + Sync + 'static {
    /// All served models, the default chat model first.
    fn models(&self) -> Vec<ModelInfo>;

    /// Queues a generation and returns at once.
    ///
    /// Fails for what is known before queueing (model, template, context, constraint syntax, full queue);
    /// later failures arrive on the stream.
    fn generate(&self, request: GenerateRequest) -> Result<EventStream, InferError>;

    /// One vector per input, in order, with the model's own pooling, L2-normalised.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, InferError>>;

    /// Class probabilities per input, from a sequence-classification model.
    fn classify(&self, request: ClassifyRequest) -> BoxFuture<'_, Result<Vec<ClassScores>, InferError>>;

    /// Log-probability of `continuation` after `context`, per token.
    fn log_likelihood(&self, request: ScoreRequest) -> BoxFuture<'_, Result<Vec<TokenLogprob>, InferError>>;

    /// Token ids of `text`. Control tokens spelled out in `text` are plain text unless `parse_special`.
    fn tokenize(&self, model: &ModelId, text: &str, options: TokenizeOptions) -> Result<Vec<u32>, InferError>;
    fn detokenize(&self, model: &ModelId, tokens: &[u32]) -> Result<String, InferError>;

    /// What the model's files say of its tokenizer and chat template, in the words of `tokenizer_config.json`. A host without
    /// tokenizers knows no model.
    fn tokenizer_info(&self, model: &ModelId) -> Result<Map<String, Value>, InferError> {
        Err(InferError::UnknownModel(model.to_string()))
    }

    /// The prompt text and token ids that a chat becomes under the model's template.
    fn render(&self, model: &ModelId, prompt: &ChatPrompt) -> Result<Rendered, InferError>;

    /// Gauges for `/metrics` and `/health`.
    fn load(&self) -> Load;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    pub id: ModelId,
    pub kind: ModelKind,
    /// Sha256 of the weights; of an adapter, over its base's and its own.
    pub digest: Digest,
    /// The served model that an adapter changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ModelId>,
    /// Most tokens of prompt and completion together.
    pub context_tokens: u32,
    pub parameters: u64,
    /// Length of its embeddings, for [`ModelKind::Embedder`].
    pub embedding_dimensions: Option<u32>,
    /// Family in Hugging Face's words, for example `llama`.
    pub architecture: String,
    /// Weight formats, for example `Q4_1`.
    pub quantization: String,
    /// Seconds since 1970 at which it was loaded.
    pub created: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    Generator,
    Embedder,
    Classifier,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    pub model: ModelId,
    /// Prefix reuse never crosses tenants.
    pub tenant: TenantId,
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub constraint: Option<Constraint>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Rendered by the model's chat template; tool calls in the answer are parsed into events.
    Chat(ChatPrompt),
    /// Reaches the tokenizer as it is, with the tokenizer's own begin token.
    Text(String),
    /// Used as they are.
    Tokens(Vec<u32>),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatPrompt {
    pub messages: Vec<Message>,
    pub tools: Vec<ToolSpec>,
    pub tool_choice: ToolChoice,
    /// Further variables for the template, for example `enable_thinking`.
    pub template_args: Map<String, Value>,
}

/// How the next token is drawn. Penalties count prompt and completion for `repetition_penalty` and the completion
/// alone for `frequency_penalty` and `presence_penalty`, as vLLM does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Upper bound of completion tokens; `None`: what the context leaves.
    pub max_tokens: Option<u32>,
    /// 0.0 to 2.0; 0.0 always takes the likeliest token.
    pub temperature: f32,
    /// Keep the k likeliest; 0 keeps all.
    pub top_k: u32,
    /// Keep the shortest prefix reaching this mass; 1.0 keeps all.
    pub top_p: f32,
    /// Drop tokens below this share of the likeliest; 0.0 drops none.
    pub min_p: f32,
    /// Over 1.0 discourages repeats; 1.0 is off.
    pub repetition_penalty: f32,
    /// -2.0 to 2.0, per occurrence.
    pub frequency_penalty: f32,
    /// -2.0 to 2.0, once.
    pub presence_penalty: f32,
    /// Added to a token's logit, -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// Fixes the draws. `None`: a fresh seed.
    pub seed: Option<u64>,
    /// Ends the completion; never part of it. At most 16 of at most 256 bytes.
    pub stop: Vec<String>,
    /// Go on after end-of-turn tokens.
    pub ignore_eos: bool,
    /// Report each token's log-probability with this many alternatives (0 to 20).
    pub logprobs: Option<u8>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
            stop: Vec::new(),
            ignore_eos: false,
            logprobs: None,
        }
    }
}

/// A language the completion must belong to; enforced token by token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "kebab-case")]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    JsonSchema(Value),
    Regex(String),
    /// A grammar in llguidance's Lark dialect.
    Lark(String),
}

#[derive(Debug, Clone, PartialEq)]
pub struct EmbedRequest {
    pub model: ModelId,
    pub tenant: TenantId,
    pub inputs: Vec<EmbedInput>,
    /// Cut each vector to this many leading dimensions and normalise again.
    pub dimensions: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EmbedInput {
    Text(String),
    Tokens(Vec<u32>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    pub vectors: Vec<Vec<f32>>,
    pub prompt_tokens: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ClassifyRequest {
    pub model: ModelId,
    pub tenant: TenantId,
    pub inputs: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRequest {
    pub model: ModelId,
    pub tenant: TenantId,
    pub context: Prompt,
    pub continuation: EmbedInput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenizeOptions {
    /// Add the tokenizer's begin and end tokens.
    pub add_special: bool,
    /// Read control tokens that are spelled out in the text.
    pub parse_special: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    pub tokens: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    pub sequences_running: u32,
    pub sequences_waiting: u32,
    pub kv_pages_used: u32,
    pub kv_pages_total: u32,
}

/// Why a model call was refused or ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    #[error("model `{0}` is not served")]
    UnknownModel(String),
    #[error("model `{model}` is a {is:?}, this call needs a {needs:?}")]
    WrongKind { model: ModelId, is: ModelKind, needs: ModelKind },
    #[error("{prompt} prompt + {requested} new tokens exceed the context of {limit}")]
    ContextOverflow { prompt: u32, requested: u32, limit: u32 },
    /// `field` in the words of [`Sampling`] or of the request.
    #[error("{field}: {reason}")]
    Invalid { field: &'static str, reason: String },
    #[error("the chat template refused the conversation: {0}")]
    Template(String),
    #[error("the schema or grammar cannot be enforced: {0}")]
    Constraint(String),
    #[error("queue is full with {waiting} requests waiting")]
    Overloaded { waiting: usize },
    #[error("the request was cancelled")]
    Cancelled,
    #[error("backend failed in {stage}")]
    Backend {
        stage: &'static str,
        #[source]
        source: BoxError,
    },
}

impl InferError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Overloaded { .. } => Fault::Load,
            Self::Backend { .. } => Fault::Host,
            _ => Fault::Caller,
        }
    }
}

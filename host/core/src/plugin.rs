//! The component seam: how the gateway reaches sandboxed policy. Implemented by `runtime`.
//!
//! Invariant: a call runs in a fresh instance of exactly the version that its [`Call`] pins; nothing of it outlives
//! the call, and its failure is the failure of this call alone.

use crate::chat::{Message, ToolChoice, ToolOutput, ToolSpec};
use crate::error::{BoxFuture, Fault};
use crate::event::Event;
use crate::id::{ComponentName, ComponentRef, Digest, RequestId, TenantId, Version};
use crate::infer::{Constraint, Sampling};
use crate::limits::{CallUsage, LimitKind, Limits};
use crate::registry::Span;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a tenant binds a component to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Role {
    ShieldInput,
    ShieldOutput,
    /// A shield that stands in nobody's way: it judges when it is called by this name.
    Shield(ComponentName),
    Orchestrator,
    PromptStore,
    Memory,
    Evaluator(ComponentName),
    Reward(ComponentName),
    Generator(ComponentName),
    Tool(ComponentName),
}

/// The kind of plugin that a component implements: one per exported interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginKind {
    Shield,
    Orchestrator,
    PromptStore,
    Memory,
    Evaluator,
    RewardScorer,
    Generator,
    Tool,
    /// Several tools in one component.
    Toolset,
}

impl Role {
    /// Whether a plugin of this kind can fill the role.
    pub fn takes(&self, kind: PluginKind) -> bool {
        match self {
            Self::ShieldInput | Self::ShieldOutput | Self::Shield(_) => kind == PluginKind::Shield,
            Self::Orchestrator => kind == PluginKind::Orchestrator,
            Self::PromptStore => kind == PluginKind::PromptStore,
            Self::Memory => kind == PluginKind::Memory,
            Self::Evaluator(_) => kind == PluginKind::Evaluator,
            Self::Reward(_) => kind == PluginKind::RewardScorer,
            Self::Generator(_) => kind == PluginKind::Generator,
            Self::Tool(_) => matches!(kind, PluginKind::Tool | PluginKind::Toolset),
        }
    }

    /// Whether several components may be bound, in order.
    pub fn is_list(&self) -> bool {
        matches!(self, Self::ShieldInput | Self::ShieldOutput)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShieldInput => f.write_str("shield.input"),
            Self::ShieldOutput => f.write_str("shield.output"),
            Self::Shield(n) => write!(f, "shield/{n}"),
            Self::Orchestrator => f.write_str("orchestrator"),
            Self::PromptStore => f.write_str("prompt-store"),
            Self::Memory => f.write_str("memory"),
            Self::Evaluator(n) => write!(f, "evaluator/{n}"),
            Self::Reward(n) => write!(f, "reward/{n}"),
            Self::Generator(n) => write!(f, "generator/{n}"),
            Self::Tool(n) => write!(f, "tool/{n}"),
        }
    }
}

/// A role that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a role: shield.input, shield.output, shield/NAME, orchestrator, prompt-store, memory, \
     evaluator/NAME, reward/NAME, generator/NAME, tool/NAME"
)]
pub struct RoleError(pub String);

impl FromStr for Role {
    type Err = RoleError;
    fn from_str(s: &str) -> Result<Self, RoleError> {
        let bad = || RoleError(s.chars().take(64).collect());
        Ok(match s {
            "shield.input" => Self::ShieldInput,
            "shield.output" => Self::ShieldOutput,
            "orchestrator" => Self::Orchestrator,
            "prompt-store" => Self::PromptStore,
            "memory" => Self::Memory,
            _ => {
                let (kind, name) = s.split_once('/').ok_or_else(bad)?;
                let name = ComponentName::new(name).map_err(|_| bad())?;
                match kind {
                    "shield" => Self::Shield(name),
                    "evaluator" => Self::Evaluator(name),
                    "reward" => Self::Reward(name),
                    "generator" => Self::Generator(name),
                    "tool" => Self::Tool(name),
                    _ => return Err(bad()),
                }
            }
        })
    }
}
impl TryFrom<String> for Role {
    type Error = RoleError;
    fn try_from(s: String) -> Result<Self, RoleError> {
        s.parse()
    }
}
impl From<Role> for String {
    fn from(role: Role) -> String {
        role.to_string()
    }
}

/// What a component may reach. Nothing by default; `*` in a list grants all of the tenant's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Served model names.
    pub models: Vec<String>,
    /// State bucket names.
    pub buckets: Vec<String>,
    /// Outbound hosts; see [`crate::http::Target::reach`].
    pub http: Vec<String>,
    /// Directories of the host, by path.
    pub directories: Vec<DirectoryGrant>,
    /// Secret names.
    pub secrets: Vec<String>,
    /// Roles it may call through the host, for example `prompt-store` or `tool/*`.
    pub components: Vec<String>,
    /// Data sets it may read and make; it changes those alone that it has made.
    pub datasets: Vec<String>,
    /// Kinds of jobs it may make, for example `train`; it sees and steers those alone that it has made. What a job names
    /// (models, its result's name included, data sets, rewards) must be granted as well.
    pub jobs: Vec<String>,
    /// Overrides of the default limits; `None`: the host's defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// A directory that a component sees under `guest_path`. Opened through a capability: no path leads out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryGrant {
    pub host_path: String,
    pub guest_path: String,
    #[serde(default)]
    pub writable: bool,
}

impl Grants {
    pub fn allows(list: &[String], name: &str) -> bool {
        list.iter().any(|g| g == "*" || g == name || g.strip_suffix('*').is_some_and(|p| name.starts_with(p)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Its verdicts are carried out.
    #[default]
    Enforce,
    /// Its verdicts are recorded only.
    Observe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// A failing component fails the request.
    #[default]
    Block,
    /// The request goes on; the trace says so.
    Allow,
}

/// One binding entry, resolved to exact bytes and grants.
#[derive(Debug, Clone, PartialEq)]
pub struct Pinned {
    pub role: Role,
    pub component: ComponentRef,
    /// The binding's configuration, handed to the component as JSON.
    pub config: Value,
    pub grants: Arc<Grants>,
    pub mode: Mode,
    pub on_failure: OnFailure,
    /// The text shown when this shield blocks; `None`: the shield's own.
    pub refusal: Option<String>,
}

impl Pinned {
    /// A component in a role without a binding that says more: its verdicts count, and its failure fails the request.
    pub fn new(role: Role, component: ComponentRef, config: Value, grants: Grants) -> Self {
        Self {
            role,
            component,
            config,
            grants: Arc::new(grants),
            mode: Mode::default(),
            on_failure: OnFailure::default(),
            refusal: None,
        }
    }
}

/// All bindings of a tenant as they were when its request came in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pins {
    pub entries: BTreeMap<Role, Vec<Arc<Pinned>>>,
    /// The memory banks that the request may touch; `None`: any.
    pub banks: Option<Banks>,
}

/// The memory banks of a request, by the name that components use for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Banks(pub BTreeMap<String, Bank>);

/// One memory bank as a request sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bank {
    /// Its name in the tenant's memory: of this user, session or assistant alone where its scope says so.
    pub scoped: String,
    pub write: bool,
}

impl Pins {
    /// What the tenant's memory calls the bank `name`, or `None` when the request may not touch it so.
    pub fn bank(&self, name: String, write: bool) -> Option<String> {
        match &self.banks {
            None => Some(name),
            Some(Banks(banks)) => banks.get(&name).filter(|b| b.write || !write).map(|b| b.scoped.clone()),
        }
    }
}

impl Pins {
    pub fn one(&self, role: &Role) -> Option<&Arc<Pinned>> {
        self.entries.get(role).and_then(|e| e.first())
    }
    pub fn all(&self, role: &Role) -> &[Arc<Pinned>] {
        self.entries.get(role).map_or(&[], Vec::as_slice)
    }
    /// The shield that answers to `name`: the one bound to it, else one of a direction whose component is called so.
    pub fn shield(&self, name: &ComponentName) -> Option<&Arc<Pinned>> {
        let named = self.one(&Role::Shield(name.clone()));
        let mut mandatory = self.all(&Role::ShieldInput).iter().chain(self.all(&Role::ShieldOutput));
        named.or_else(|| mandatory.find(|p| p.component.name == *name))
    }
    /// Bound tools by name.
    pub fn tools(&self) -> impl Iterator<Item = (&ComponentName, &Arc<Pinned>)> {
        self.entries.iter().filter_map(|(role, entries)| match role {
            Role::Tool(name) => entries.first().map(|e| (name, e)),
            _ => None,
        })
    }
    /// The bound component that offers the tool of this name, and the tool's own name where it is one of a set.
    pub fn tool(&self, name: &str) -> Option<(&Arc<Pinned>, Option<String>)> {
        let bound = |name: &str| self.one(&Role::Tool(ComponentName::new(name).ok()?));
        if let Some(pinned) = bound(name) {
            return Some((pinned, None));
        }
        name.match_indices(TOOLSET_SEPARATOR).find_map(|(at, separator)| {
            let (set, tool) = (&name[..at], &name[at + separator.len()..]);
            Some((bound(set)?, Some(tool.into())))
        })
    }
}

/// Stands between the bound name of a set of tools and the name of one of them.
pub const TOOLSET_SEPARATOR: &str = "__";

/// Everything that belongs to one call into a component.
#[derive(Debug, Clone)]
pub struct Call {
    pub tenant: TenantId,
    pub request: RequestId,
    pub target: Arc<Pinned>,
    /// The tenant's other bindings, which the component may reach within its grants.
    pub pins: Arc<Pins>,
    /// Where the call reports itself.
    pub trace: Arc<TraceLog>,
    /// 0 for a call from the gateway, one more for each component in between; bounded by the runtime.
    pub depth: u8,
}

impl Call {
    pub fn target(&self, target: &Arc<Pinned>) -> Self {
        Self { target: target.clone(), ..self.clone() }
    }
}

/// Collects what each component of a request decided and used.
#[derive(Debug)]
pub struct TraceLog {
    started: Instant,
    calls: Mutex<Vec<ComponentCall>>,
    prompts: Mutex<Vec<PromptUse>>,
    spans: Mutex<ComponentSpans>,
}

/// What components have measured inside of their calls.
#[derive(Debug, Default)]
struct ComponentSpans {
    spans: Vec<Span>,
    /// Of their texts.
    bytes: usize,
}

impl Default for TraceLog {
    /// A log whose request starts now.
    fn default() -> Self {
        Self { started: Instant::now(), calls: Mutex::default(), prompts: Mutex::default(), spans: Mutex::default() }
    }
}

/// Most component calls that one trace keeps; later ones are counted only.
pub const MAX_TRACED_CALLS: usize = 1000;
/// Most different prompt versions that one trace names.
pub const MAX_TRACED_PROMPTS: usize = 100;
/// Most spans of components that one trace keeps, and most bytes of their texts together; later ones are left out.
const MAX_TRACED_SPANS: usize = 500;
const MAX_TRACED_SPAN_BYTES: usize = 64 << 10;
/// Longest name of a prompt, a label or a digest in a trace, in bytes: a foreign store's may be of any length.
const MAX_PROMPT_NAME_BYTES: usize = 256;

impl TraceLog {
    /// Microseconds since the request's start.
    pub fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
    pub fn record(&self, call: ComponentCall) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() < MAX_TRACED_CALLS {
            calls.push(call);
        }
    }
    pub fn snapshot(&self) -> Vec<ComponentCall> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Notes the version of a prompt that the request has used; the same one again is the same entry.
    pub fn record_prompt(&self, mut used: PromptUse) {
        for text in [Some(&mut used.name), Some(&mut used.digest), used.label.as_mut()].into_iter().flatten() {
            text.truncate(text.floor_char_boundary(MAX_PROMPT_NAME_BYTES));
        }
        let mut prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        if prompts.len() < MAX_TRACED_PROMPTS && !prompts.contains(&used) {
            prompts.push(used);
        }
    }
    /// Keeps a span that a component has measured.
    pub fn record_span(&self, span: Span) {
        let attributes = span.attributes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let bytes = span.name.len() + span.parent.as_ref().map_or(0, String::len) + attributes;
        let mut kept = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.spans.len() < MAX_TRACED_SPANS && kept.bytes + bytes <= MAX_TRACED_SPAN_BYTES {
            kept.bytes += bytes;
            kept.spans.push(span);
        }
    }
    /// Spans of components in the order of their ends.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).spans.clone()
    }
    /// Prompts in the order of their first use.
    pub fn prompts(&self) -> Vec<PromptUse> {
        self.prompts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A stored prompt that a request has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptUse {
    pub name: String,
    pub version: u32,
    /// Of the version's definition, as the prompt store gives it.
    pub digest: String,
    /// The label that chose the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Counts the label's moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_revision: Option<u32>,
}

/// One component's part in a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComponentCall {
    pub role: Role,
    pub component: ComponentName,
    pub version: Version,
    pub digest: Digest,
    /// The exported function.
    pub function: String,
    /// `ok`, `pass`, `block`, `edit`, `error`, or the limit that ended it.
    pub decision: String,
    /// Bytes a shield has judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scanned_bytes: Option<u64>,
    /// Microseconds from the request's start.
    pub start_us: u64,
    #[serde(flatten)]
    pub usage: CallUsage,
    /// Log lines that the component wrote, within its limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
}

/// Name of the span of a call in its request's trace.
pub fn call_span(role: &Role, component: &ComponentName, version: &Version) -> String {
    format!("{role} {component}@{version}")
}

/// What an upload turned out to be, once it has passed the gate, compiled and been tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Admitted {
    pub digest: Digest,
    pub size_bytes: u64,
    pub roles: Vec<PluginKind>,
    /// Interface names with versions.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub grants_wanted: Grants,
    pub compile_ms: u64,
    pub warnings: Vec<String>,
    /// The component's own `stockade:manifest` section, as JSON; `null` without one.
    pub manifest: Value,
}

/// Why an upload was not admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmitError {
    #[error("not an acceptable component")]
    Invalid { reasons: Vec<Reason> },
    #[error("component of {size} bytes exceeds the limit of {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("too many uploads are being compiled")]
    Overloaded,
    #[error("the host failed in {stage}")]
    Host {
        stage: &'static str,
        #[source]
        source: crate::BoxError,
    },
}

/// One defect of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Item path or byte offset.
    pub at: String,
    pub found: String,
    pub expected: String,
}

/// A shield's finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// Stable name of the rule or category.
    pub category: String,
    /// For the end user; the binding's `refusal` wins over it.
    pub message: String,
    /// 0.0 to 1.0 where the shield has a score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
    /// Anything else, as JSON.
    #[serde(default)]
    pub metadata: Value,
}

/// A shield's verdict over whole messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Pass,
    /// Go on with these messages instead (masking).
    Edit(Vec<Message>),
    Block(Violation),
}

/// Which text a streaming shield judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    Text,
    Reasoning,
    /// Name and arguments of the tool call with this index.
    ToolCall(u32),
    /// Title and detail of the step with this number.
    Step(u32),
}

/// What a streaming shield says after a piece of one channel. Offsets count bytes of that channel from its start, in
/// the text as the model wrote it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ruling {
    /// All bytes before this offset may go out; never shrinks, always on a character boundary.
    pub cleared: u64,
    /// Replacements inside the cleared part, in order, not overlapping.
    pub edits: Vec<Edit>,
    pub violation: Option<Violation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub start: u64,
    pub end: u64,
    pub replacement: String,
}

/// A running streaming shield: one component instance for one reply.
pub trait ShieldStream: Send {
    fn feed<'a>(&'a mut self, channel: Channel, text: &'a str) -> BoxFuture<'a, Result<Ruling, CallError>>;
    /// No more text on this channel: the shield rules on all that it has held back.
    fn finish(&mut self, channel: Channel) -> BoxFuture<'_, Result<Ruling, CallError>>;
    /// Most bytes that this shield ever holds back on a channel.
    fn hold_back(&self) -> u32;
}

/// One request to an orchestrator: the dialect's request in the internal form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    pub model: String,
    pub messages: Vec<Message>,
    /// Tools of the client, which it runs itself.
    pub tools: Vec<ToolSpec>,
    pub tool_choice: ToolChoice,
    pub sampling: Sampling,
    pub constraint: Option<Constraint>,
    /// The client's metadata, text by key.
    pub metadata: BTreeMap<String, String>,
    /// Further variables for the chat template.
    pub template_args: Map<String, Value>,
    /// Set when an interrupted turn goes on.
    pub resume: Option<Resumption>,
}

/// What an interrupted turn goes on with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resumption {
    /// As the interruption left it.
    pub state: Value,
    pub answer: Value,
}

/// An orchestrator's events. Dropping it ends the call and drops the instance.
pub type TurnStream = tokio::sync::mpsc::Receiver<Result<Event, CallError>>;

/// The answer of [`Plugins::invoke`].
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    pub result: Value,
    pub usage: CallUsage,
}

/// Why a component call ended without its answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The component answered with an error of its own.
    #[error("component `{component}` answered: {message}")]
    Component { component: String, code: &'static str, message: String },
    /// It crashed or met a limit.
    #[error("component `{component}` failed: {detail}")]
    Failed { component: String, limit: LimitKind, detail: String },
    /// It needed something that it was not granted.
    #[error("component `{component}` was denied {what}")]
    Denied { component: String, what: String },
    #[error("component `{component}` has no function `{function}`")]
    NoFunction { component: String, function: String },
    #[error("arguments: {0}")]
    Arguments(String),
    /// A model call underneath failed and the component passed that on.
    #[error(transparent)]
    Infer(#[from] crate::infer::InferError),
    #[error("too many component calls at once")]
    Overloaded,
    #[error("the host failed in {stage}")]
    Host {
        stage: &'static str,
        #[source]
        source: crate::BoxError,
    },
}

impl CallError {
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoFunction { .. } | Self::Arguments(_) => Fault::Caller,
            Self::Infer(e) => e.fault(),
            Self::Overloaded => Fault::Load,
            Self::Component { .. } | Self::Failed { .. } | Self::Denied { .. } | Self::Host { .. } => Fault::Host,
        }
    }
}

/// How a component's values make a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetricKind {
    /// Added up.
    Count,
    /// Values of a distribution.
    Observe,
}

/// One series that a component keeps about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ComponentMetric {
    /// `NAME@VERSION`.
    pub component: String,
    pub kind: MetricKind,
    pub name: String,
    /// Sum of all values.
    pub sum: f64,
    /// How many values.
    pub values: u64,
}

/// Loads and calls components. Futures may be dropped at any time: the instance is dropped with them.
pub trait Plugins: Send + Sync + 'static {
    /// The whole way of an upload: static gate, compilation in a process of its own, trial instantiation.
    /// Keeps the compiled artifact; the caller stores the bytes.
    fn admit(&self, tenant: &TenantId, bytes: Bytes) -> BoxFuture<'_, Result<Admitted, AdmitError>>;

    /// Makes sure that a component can be called at once: loads its artifact, or compiles it again from the blob.
    fn warm(&self, component: &ComponentRef) -> BoxFuture<'_, Result<(), CallError>>;

    /// Deletes what was compiled of components whose bytes are gone: called after versions and tenants are deleted.
    fn sweep(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    /// A shield's verdict over whole messages.
    fn check(
        &self,
        call: Call,
        direction: Direction,
        messages: Vec<Message>,
    ) -> BoxFuture<'_, Result<Verdict, CallError>>;

    /// Opens a streaming shield for one reply to `conversation`.
    fn open_stream(
        &self,
        call: Call,
        conversation: &[Message],
    ) -> BoxFuture<'_, Result<Box<dyn ShieldStream>, CallError>>;

    /// Starts an orchestrator.
    fn run_turn(&self, call: Call, turn: Turn) -> TurnStream;

    /// What a bound tool is, or what the tools of a bound set are, under their bound names.
    fn tools(&self, call: Call) -> BoxFuture<'_, Result<Vec<ToolSpec>, CallError>>;

    /// Calls a bound tool; `tool` names one of a set.
    fn call_tool(
        &self,
        call: Call,
        tool: Option<String>,
        arguments: Value,
    ) -> BoxFuture<'_, Result<ToolOutput, CallError>>;

    /// Calls an exported function by name (`check`, or `INTERFACE#FUNCTION`) with JSON arguments in order.
    fn invoke(&self, call: Call, function: String, args: Vec<Value>) -> BoxFuture<'_, Result<Invocation, CallError>>;

    /// What components have measured about themselves, a bounded number of series.
    fn metrics(&self) -> Vec<ComponentMetric> {
        Vec::new()
    }
}

/// Which way the text goes that a shield judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Input,
    Output,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_round_trip_and_unknown_ones_are_refused() {
        for text in [
            "shield.input",
            "shield.output",
            "shield/pii",
            "orchestrator",
            "prompt-store",
            "memory",
            "tool/echo",
            "reward/a",
        ] {
            assert_eq!(text.parse::<Role>().unwrap().to_string(), text);
        }
        for bad in ["", "shield", "tool/", "tool/A", "tool/a/b", "x/y"] {
            assert!(bad.parse::<Role>().is_err(), "{bad}");
        }
    }

    #[test]
    fn grants_match_names_prefixes_and_nothing_else() {
        let list = vec!["smollm2".to_string(), "tool/*".to_string()];
        assert!(Grants::allows(&list, "smollm2"));
        assert!(Grants::allows(&list, "tool/echo"));
        assert!(!Grants::allows(&list, "smollm2x"));
        assert!(!Grants::allows(&[], "anything"));
    }
}

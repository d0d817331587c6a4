//! The functions that plugins export, as the host calls them: names, and the check that a component's are the API's.

use crate::bindings::{evaluator, memory, orchestrator, prompt_store, reward_scorer, shield, types};
use crate::guest::Guest;
use stockade_core::plugin::{PluginKind, Reason};
use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, Func, Instance, Lift, Lower, ResourceAny};

/// An exported function: interface and name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Export {
    pub interface: &'static str,
    pub function: &'static str,
}

const fn export(interface: &'static str, function: &'static str) -> Export {
    Export { interface, function }
}

const SHIELD: &str = "stockade:plugin/shield@0.1.0";
const ORCHESTRATOR: &str = "stockade:plugin/orchestrator@0.1.0";
const PROMPT_STORE: &str = "stockade:plugin/prompt-store@0.1.0";
const MEMORY: &str = "stockade:plugin/memory@0.1.0";
const EVALUATOR: &str = "stockade:plugin/evaluator@0.1.0";
const REWARD_SCORER: &str = "stockade:plugin/reward-scorer@0.1.0";
const GENERATOR: &str = "stockade:plugin/generator@0.1.0";
const TOOL: &str = "stockade:plugin/tool@0.1.0";
pub(crate) const TOOLSET: &str = "stockade:plugin/toolset@0.1.0";

pub(crate) const SHIELD_CHECK: Export = export(SHIELD, "check");
pub(crate) const SHIELD_HOLD_BACK: Export = export(SHIELD, "hold-back");
pub(crate) const SHIELD_SESSION: Export = export(SHIELD, "[constructor]session");
pub(crate) const SHIELD_FEED: Export = export(SHIELD, "[method]session.feed");
pub(crate) const SHIELD_FINISH: Export = export(SHIELD, "[method]session.finish");
pub(crate) const ORCHESTRATOR_RUN: Export = export(ORCHESTRATOR, "run");
pub(crate) const PROMPT_PUT: Export = export(PROMPT_STORE, "put");
pub(crate) const PROMPT_GET: Export = export(PROMPT_STORE, "get");
pub(crate) const PROMPT_VERSIONS: Export = export(PROMPT_STORE, "versions");
pub(crate) const PROMPT_FIND: Export = export(PROMPT_STORE, "find");
pub(crate) const PROMPT_SET_LABEL: Export = export(PROMPT_STORE, "set-label");
pub(crate) const PROMPT_DELETE_LABEL: Export = export(PROMPT_STORE, "delete-label");
pub(crate) const PROMPT_LABEL_MOVES: Export = export(PROMPT_STORE, "label-moves");
pub(crate) const PROMPT_DELETE: Export = export(PROMPT_STORE, "delete");
pub(crate) const PROMPT_RENDER: Export = export(PROMPT_STORE, "render");
pub(crate) const PROMPT_RENDER_INLINE: Export = export(PROMPT_STORE, "render-inline");
pub(crate) const PROMPT_DIFF: Export = export(PROMPT_STORE, "diff");
pub(crate) const PROMPT_DUMP: Export = export(PROMPT_STORE, "dump");
pub(crate) const PROMPT_LOAD: Export = export(PROMPT_STORE, "load");
pub(crate) const MEMORY_CREATE: Export = export(MEMORY, "create");
pub(crate) const MEMORY_BANKS: Export = export(MEMORY, "banks");
pub(crate) const MEMORY_DROP: Export = export(MEMORY, "drop");
pub(crate) const MEMORY_INSERT: Export = export(MEMORY, "insert");
pub(crate) const MEMORY_INGEST: Export = export(MEMORY, "ingest");
pub(crate) const MEMORY_GET: Export = export(MEMORY, "get");
pub(crate) const MEMORY_LIST: Export = export(MEMORY, "list");
pub(crate) const MEMORY_SEARCH: Export = export(MEMORY, "search");
pub(crate) const MEMORY_DELETE: Export = export(MEMORY, "delete");
pub(crate) const MEMORY_FORGET: Export = export(MEMORY, "forget");
pub(crate) const TOOL_DESCRIBE: Export = export(TOOL, "describe");
pub(crate) const TOOL_CALL: Export = export(TOOL, "call");
pub(crate) const TOOLSET_LIST: Export = export(TOOLSET, "list");
pub(crate) const TOOLSET_CALL: Export = export(TOOLSET, "call");

/// Kinds by the interface that a plugin exports.
pub(crate) const KINDS: &[(&str, PluginKind)] = &[
    (SHIELD, PluginKind::Shield),
    (ORCHESTRATOR, PluginKind::Orchestrator),
    (PROMPT_STORE, PluginKind::PromptStore),
    (MEMORY, PluginKind::Memory),
    (EVALUATOR, PluginKind::Evaluator),
    (REWARD_SCORER, PluginKind::RewardScorer),
    (GENERATOR, PluginKind::Generator),
    (TOOL, PluginKind::Tool),
    (TOOLSET, PluginKind::Toolset),
];

/// A function of an instance, whatever its type.
pub(crate) fn func(store: &mut Store<Guest>, instance: Instance, e: Export) -> Option<Func> {
    let (_, interface) = instance.get_export(&mut *store, None, e.interface)?;
    let (_, function) = instance.get_export(&mut *store, Some(&interface), e.function)?;
    instance.get_func(&mut *store, function)
}

/// What of the API's functions for `kind` the instance lacks or has with another type.
pub(crate) fn missing(store: &mut Store<Guest>, instance: Instance, kind: PluginKind) -> Vec<Reason> {
    type Answer<T> = (Result<T, types::Error>,);
    let mut check = Check { store, instance, reasons: Vec::new() };
    match kind {
        PluginKind::Shield => {
            check.has::<(types::Direction, Vec<types::Message>), Answer<types::Verdict>>(SHIELD_CHECK);
            check.has::<(), (u32,)>(SHIELD_HOLD_BACK);
            check.has::<(types::Channel, Vec<types::Message>), (ResourceAny,)>(SHIELD_SESSION);
            check.has::<(ResourceAny, String), Answer<shield::Ruling>>(SHIELD_FEED);
            check.has::<(ResourceAny,), Answer<shield::Ruling>>(SHIELD_FINISH);
        }
        PluginKind::Orchestrator => {
            check.has::<(orchestrator::Turn,), Answer<orchestrator::Outcome>>(ORCHESTRATOR_RUN);
        }
        PluginKind::PromptStore => {
            use prompt_store::{
                Change, Content, Definition, Difference, Filter, Form, Label, LabelChange, LabelMove, Prompt, Rendered,
                Selector, Summary, Unit, Version,
            };
            check.has::<(String, Definition, Change), Answer<Version>>(PROMPT_PUT);
            check.has::<(String, Selector), Answer<Prompt>>(PROMPT_GET);
            check.has::<(String, Option<u32>, u32), Answer<Vec<Version>>>(PROMPT_VERSIONS);
            check.has::<(Filter, Option<String>, u32), Answer<Vec<Summary>>>(PROMPT_FIND);
            check.has::<(String, String, LabelChange), Answer<Label>>(PROMPT_SET_LABEL);
            check.has::<(String, String, LabelChange), Answer<()>>(PROMPT_DELETE_LABEL);
            check.has::<(String,), Answer<Vec<LabelMove>>>(PROMPT_LABEL_MOVES);
            check.has::<(String, Option<u32>, bool), Answer<()>>(PROMPT_DELETE);
            check.has::<(String, Selector, String), Answer<Rendered>>(PROMPT_RENDER);
            check.has::<(Definition, String), Answer<Content>>(PROMPT_RENDER_INLINE);
            check.has::<(String, Selector, Selector, Unit), Answer<Vec<Difference>>>(PROMPT_DIFF);
            check.has::<(String, Selector, Form), Answer<String>>(PROMPT_DUMP);
            check.has::<(Option<String>, String, Form, Change), Answer<Vec<Version>>>(PROMPT_LOAD);
        }
        PluginKind::Memory => {
            use memory::{Bank, BankKind, Document, Hit, Ingested, Item, Query};
            check.has::<(String, BankKind, String), Answer<()>>(MEMORY_CREATE);
            check.has::<(Option<String>, u32), Answer<Vec<Bank>>>(MEMORY_BANKS);
            check.has::<(String,), Answer<()>>(MEMORY_DROP);
            check.has::<(String, Vec<Item>), Answer<Vec<String>>>(MEMORY_INSERT);
            check.has::<(String, Document), Answer<Ingested>>(MEMORY_INGEST);
            check.has::<(String, Vec<String>), Answer<Vec<Item>>>(MEMORY_GET);
            check.has::<(String, Option<String>, Option<String>, u32), Answer<Vec<Item>>>(MEMORY_LIST);
            check.has::<(String, Query), Answer<Vec<Hit>>>(MEMORY_SEARCH);
            check.has::<(String, Vec<String>), Answer<u32>>(MEMORY_DELETE);
            check.has::<(String, String), Answer<u32>>(MEMORY_FORGET);
        }
        PluginKind::Evaluator => {
            use evaluator::{Metric, Sample, Score};
            check.has::<(), (Vec<Metric>,)>(export(EVALUATOR, "metrics"));
            check.has::<(Vec<Sample>,), Answer<Vec<Vec<Score>>>>(export(EVALUATOR, "evaluate"));
        }
        PluginKind::RewardScorer => {
            use reward_scorer::Rollout;
            check.has::<(Vec<Rollout>,), Answer<Vec<Option<f64>>>>(export(REWARD_SCORER, "score"));
        }
        PluginKind::Generator => {
            check.has::<(String,), (ResourceAny,)>(export(GENERATOR, "[constructor]rows"));
            check.has::<(ResourceAny,), Answer<Option<Vec<String>>>>(export(GENERATOR, "[method]rows.next"));
        }
        PluginKind::Tool => {
            check.has::<(), (types::ToolSpec,)>(TOOL_DESCRIBE);
            check.has::<(String,), Answer<types::ToolOutput>>(TOOL_CALL);
        }
        PluginKind::Toolset => {
            check.has::<(), Answer<Vec<types::ToolSpec>>>(TOOLSET_LIST);
            check.has::<(String, String), Answer<types::ToolOutput>>(TOOLSET_CALL);
        }
    }
    check.reasons
}

struct Check<'a> {
    store: &'a mut Store<Guest>,
    instance: Instance,
    reasons: Vec<Reason>,
}

impl Check<'_> {
    fn has<P, R>(&mut self, e: Export)
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let found = match func(self.store, self.instance, e) {
            None => "no such function".to_string(),
            Some(f) => match f.typed::<P, R>(&mut *self.store) {
                Ok(_) => return,
                Err(e) => format!("{e:#}"),
            },
        };
        self.reasons.push(Reason {
            at: format!("export {}#{}", e.interface, e.function),
            found,
            expected: "the function as the plugin API declares it".into(),
        });
    }
}

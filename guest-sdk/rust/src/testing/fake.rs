//! The host's interfaces in memory, function for function as the generated bindings have them.
//!
//! State is the thread's own. Invariant: no borrow of it is held while plugin or test code runs.

pub mod datasets;
pub mod jobs;

use crate::Result;
use crate::filter::Filter;
use crate::http::{Request, Response};
use crate::inference::{ChatRequest, CompleteRequest, LabelScore, Prompt, TokenScore};
use crate::prompts::{Content, Selector};
use crate::telemetry::Level;
use crate::types::{Channel, Direction, Error, Event, Message, ToolOutput, ToolSpec, Verdict};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Dimensions, metric and entries of an index.
pub(crate) type IndexFake = (u32, crate::vectors::Metric, BTreeMap<String, crate::vectors::Entry>);

type RunTool = Box<dyn Fn(Value) -> Result<ToolOutput>>;
pub(crate) type RunShield = Rc<dyn Fn(Direction, &[Message]) -> Result<Verdict>>;
pub(crate) type RunReplyShield = Rc<dyn Fn(Channel, &[Message], &str) -> Result<Verdict>>;
type Answer = Box<dyn FnMut(&Request) -> Result<Response>>;
type Embed = Rc<dyn Fn(&str) -> Result<Vec<f32>>>;
pub(crate) type Classifier = Rc<dyn Fn(&str) -> Result<Vec<LabelScore>>>;
pub(crate) type Scorer = Rc<dyn Fn(&Prompt, &str) -> Result<Vec<TokenScore>>>;

pub(crate) struct ToolFake {
    pub spec: ToolSpec,
    pub run: RunTool,
}

pub(crate) struct State {
    pub config: Value,
    pub replies: VecDeque<Result<Vec<Event>>>,
    pub requests: Vec<ChatRequest>,
    pub models: Vec<crate::inference::ModelInfo>,
    pub embedder: Option<Embed>,
    pub completions: Vec<CompleteRequest>,
    pub classifier: Option<Classifier>,
    pub scorer: Option<Scorer>,
    pub tools: BTreeMap<String, ToolFake>,
    pub tool_calls: Vec<(String, String)>,
    pub prompts: BTreeMap<String, Content>,
    pub rendered: Vec<(String, Selector, String)>,
    pub secrets: BTreeMap<String, String>,
    pub network: Option<Answer>,
    pub fetched: Vec<Request>,
    pub buckets: BTreeMap<(String, String), (u64, Vec<u8>)>,
    pub buckets_granted: Option<BTreeSet<String>>,
    pub revision: u64,
    pub sent: Vec<Event>,
    pub block_after: Option<usize>,
    pub shields: Option<Verdict>,
    pub named_shields: BTreeMap<String, RunShield>,
    pub reply_shields: BTreeMap<String, RunReplyShield>,
    pub banks: BTreeMap<String, crate::memories::Bank>,
    pub memories: BTreeMap<(String, String), crate::memories::Item>,
    pub indexes: BTreeMap<String, IndexFake>,
    pub datasets: BTreeMap<String, datasets::DatasetFake>,
    pub datasets_granted: Option<BTreeSet<String>>,
    pub jobs: BTreeMap<String, jobs::JobFake>,
    pub job_scripts: VecDeque<jobs::Script>,
    /// Specifications, in order.
    pub submitted: Vec<Value>,
    pub logs: Vec<(Level, String)>,
    pub random: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            config: serde_json::json!({}),
            replies: VecDeque::new(),
            requests: Vec::new(),
            models: Vec::new(),
            embedder: None,
            completions: Vec::new(),
            classifier: None,
            scorer: None,
            tools: BTreeMap::new(),
            tool_calls: Vec::new(),
            prompts: BTreeMap::new(),
            rendered: Vec::new(),
            secrets: BTreeMap::new(),
            network: None,
            fetched: Vec::new(),
            buckets: BTreeMap::new(),
            buckets_granted: None,
            revision: 0,
            sent: Vec::new(),
            block_after: None,
            shields: None,
            named_shields: BTreeMap::new(),
            reply_shields: BTreeMap::new(),
            banks: BTreeMap::new(),
            memories: BTreeMap::new(),
            indexes: BTreeMap::new(),
            datasets: BTreeMap::new(),
            datasets_granted: None,
            jobs: BTreeMap::new(),
            job_scripts: VecDeque::new(),
            submitted: Vec::new(),
            logs: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State::default());
}

pub(crate) fn with<T>(f: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(f)
}

fn filter(text: Option<&str>) -> Result<Option<Filter>> {
    let read = |text| Filter::parse(&serde_json::from_str(text)?).map_err(Error::Invalid);
    text.map(read).transpose()
}

fn missing(what: &str, name: &str) -> Error {
    Error::NotFound(format!("{what} `{name}`"))
}

pub mod telemetry {
    use super::{Level, with};

    pub fn log(level: Level, message: &str) {
        with(|s| s.logs.push((level, message.into())));
    }
    /// A span that nobody looks at.
    #[derive(Debug)]
    pub struct Span(());
    impl Span {
        pub fn new(_name: &str) -> Self {
            Self(())
        }
        pub fn set(&self, _key: &str, _value: &str) {}
    }
    pub fn count(name: &str, delta: f64) {
        assert!(delta.is_finite() && delta >= 0.0, "count {name} by {delta}");
    }
    pub fn observe(name: &str, value: f64) {
        assert!(value.is_finite(), "observe {name} as {value}");
    }
}

pub mod config {
    pub fn get() -> String {
        super::with(|s| s.config.to_string())
    }
}

pub mod system {
    /// A fixed moment: 2026-01-01.
    pub fn now() -> u64 {
        1_767_225_600_000
    }
    /// The same sequence in every test (xorshift).
    pub fn random(length: u32) -> Vec<u8> {
        assert!(length <= 4096, "at most 4096 random bytes");
        let next = |s: &mut super::State| {
            s.random ^= s.random << 13;
            s.random ^= s.random >> 7;
            s.random ^= s.random << 17;
            s.random as u8
        };
        super::with(|s| (0..length).map(|_| next(s)).collect())
    }
}

pub mod secrets {
    use super::{Result, missing, with};

    pub fn get(name: &str) -> Result<String> {
        with(|s| s.secrets.get(name).cloned()).ok_or_else(|| missing("secret", name))
    }
}

pub mod http {
    use super::{Error, Result, with};
    use crate::http::{Request, Response};

    pub fn send(request: &Request) -> Result<Response> {
        let network = with(|s| {
            s.fetched.push(request.clone());
            s.network.take()
        });
        // Taken out while it runs: it is test code, which may look into the host.
        let mut network = network.ok_or_else(|| Error::Denied(format!("http: {}", request.url)))?;
        let answer = network(request);
        with(|s| s.network = Some(network));
        answer
    }
}

pub mod inference {
    use super::{ChatRequest, Error, Event, Result, with};
    use crate::inference::{CompleteRequest, LabelScore, ModelInfo, Prompt, TokenScore};
    use crate::types::{Completion, FinishReason, ToolCall, Usage};
    use std::cell::RefCell;
    use std::collections::VecDeque;

    /// A scripted generation; each event comes alone, as from a slow model.
    #[derive(Debug)]
    pub struct Generation(RefCell<VecDeque<Event>>);

    impl Generation {
        pub(super) fn scripted(events: Vec<Event>) -> Self {
            Self(RefCell::new(events.into()))
        }
        pub fn next(&self) -> Result<Option<Vec<Event>>> {
            Ok(self.0.borrow_mut().pop_front().map(|event| vec![event]))
        }
        pub fn collect(&self) -> Result<Completion> {
            let mut reply = Completion {
                text: String::new(),
                reasoning: String::new(),
                tool_calls: Vec::new(),
                reason: FinishReason::Stop,
                usage: Usage { prompt_tokens: 0, cached_tokens: 0, completion_tokens: 0 },
            };
            for event in self.0.borrow_mut().drain(..) {
                match event {
                    Event::Text(text) => reply.text.push_str(&text),
                    Event::Reasoning(text) => reply.reasoning.push_str(&text),
                    Event::ToolCall(delta) => {
                        let index = delta.index as usize;
                        if index == reply.tool_calls.len() {
                            let (id, name) = (delta.id.unwrap_or_default(), delta.name.unwrap_or_default());
                            reply.tool_calls.push(ToolCall { id, name, arguments: String::new() });
                        }
                        reply.tool_calls[index].arguments.push_str(&delta.arguments);
                    }
                    Event::Step(_) => {}
                    Event::End(end) => (reply.reason, reply.usage) = (end.reason, end.usage),
                }
            }
            Ok(reply)
        }
    }

    pub fn chat(request: &ChatRequest) -> Result<Generation> {
        let reply = with(|s| {
            s.requests.push(request.clone());
            s.replies.pop_front()
        });
        let reply = reply.unwrap_or_else(|| Err(Error::Other("the test has no reply for this request".into())));
        Ok(Generation::scripted(reply?))
    }
    /// Answers from the same script; the prompt is recorded as one user message.
    pub fn complete(request: &CompleteRequest) -> Result<Generation> {
        with(|s| s.completions.push(request.clone()));
        chat(&crate::inference::Chat::new(&*request.model).user(request.prompt.spelled()).0)
    }
    /// The test's own vectors, else counts of bytes by their low five bits, normalised: texts that are alike are near.
    pub fn embed(_model: &str, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        if let Some(embedder) = with(|s| s.embedder.clone()) {
            return texts.iter().map(|text| embedder(text)).collect();
        }
        let vector = |text: &String| {
            let mut counts = vec![0f32; 32];
            text.bytes().for_each(|b| counts[usize::from(b & 31)] += 1.0);
            let norm = counts.iter().map(|c| c * c).sum::<f32>().sqrt().max(1.0);
            counts.iter().map(|c| c / norm).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }
    pub fn classify(_model: &str, texts: &[String]) -> Result<Vec<Vec<LabelScore>>> {
        assert!(texts.len() <= 256, "{} texts in one call", texts.len());
        let classifier = with(|s| s.classifier.clone()).ok_or_else(|| Error::NotFound("a classifier".into()))?;
        texts.iter().map(|text| classifier(text)).collect()
    }
    /// A token a byte.
    pub fn tokenize(_model: &str, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }
    pub fn detokenize(_model: &str, tokens: &[u32]) -> Result<String> {
        let bytes = tokens.iter().map(|&t| u8::try_from(t).map_err(|_| Error::Invalid(format!("token {t}"))));
        String::from_utf8(bytes.collect::<Result<_>>()?).map_err(|e| Error::Invalid(e.to_string()))
    }
    /// Each token as a character: a byte beyond ASCII is no whole one.
    pub fn token_texts(_model: &str, tokens: &[u32]) -> Result<Vec<String>> {
        let text = |&token: &u32| u8::try_from(token).ok().filter(u8::is_ascii).map_or('\u{fffd}', char::from).into();
        Ok(tokens.iter().map(text).collect())
    }
    pub fn log_likelihood(_model: &str, context: &Prompt, continuation: &str) -> Result<Vec<TokenScore>> {
        if let Some(scorer) = with(|s| s.scorer.clone()) {
            return scorer(context, continuation);
        }
        let score = |b: u8| TokenScore { token: b.into(), logprob: -1.0, is_greedy: false };
        Ok(continuation.bytes().map(score).collect())
    }
    pub fn models() -> Result<Vec<ModelInfo>> {
        Ok(with(|s| s.models.clone()))
    }
}

pub mod output {
    use super::{Error, Event, Result, inference::Generation, with};
    use crate::types::{Completion, Violation};

    pub fn emit(events: &[Event]) -> Result<()> {
        for event in events {
            if matches!(event, Event::End(_)) {
                return Err(Error::Invalid("events: `end` is the host's".into()));
            }
            with(|s| {
                let text = |e: &Event| if let Event::Text(t) = e { t.len() } else { 0 };
                let after = s.sent.iter().map(text).sum::<usize>() + text(event);
                if s.block_after.is_some_and(|most| after > most) {
                    return Err(Error::Blocked(Violation::new("test", "blocked by the test")));
                }
                s.sent.push(event.clone());
                Ok(())
            })?;
        }
        Ok(())
    }

    pub fn forward(generation: &Generation, tool_calls: bool) -> Result<Completion> {
        let mut all = Vec::new();
        while let Some(events) = generation.next()? {
            for event in &events {
                let sent = match event {
                    Event::End(_) => false,
                    Event::ToolCall(_) => tool_calls,
                    Event::Text(_) | Event::Reasoning(_) | Event::Step(_) => true,
                };
                if sent {
                    emit(std::slice::from_ref(event))?;
                }
            }
            all.extend(events);
        }
        Generation::scripted(all).collect()
    }
}

pub mod state {
    use super::{Error, Result, with};
    use crate::state::{Change, Entry, Expectation, Key, Write};
    use std::collections::BTreeSet;
    use std::ops::Bound;

    #[derive(Debug)]
    pub struct Bucket(String);

    pub fn open(name: &str) -> Result<Bucket> {
        let granted = with(|s| s.buckets_granted.as_ref().is_none_or(|g| g.contains(name)));
        if granted { Ok(Bucket(name.into())) } else { Err(Error::Denied(format!("buckets: {name}"))) }
    }

    impl Bucket {
        fn at(&self, key: &str) -> (String, String) {
            (self.0.clone(), key.into())
        }
        fn expect(&self, key: &str, expect: Expectation) -> Result<()> {
            let now = with(|s| s.buckets.get(&self.at(key)).map(|(revision, _)| *revision));
            let holds = match expect {
                Expectation::Anything => true,
                Expectation::Absent => now.is_none(),
                Expectation::Revision(revision) => now == Some(revision),
            };
            if holds { Ok(()) } else { Err(Error::Conflict(format!("key `{key}`"))) }
        }
        pub fn get(&self, key: &str) -> Result<Option<Entry>> {
            let found = with(|s| s.buckets.get(&self.at(key)).cloned());
            Ok(found.map(|(revision, value)| Entry { key: key.into(), value, revision }))
        }
        pub fn set(&self, key: &str, value: &[u8], expect: Expectation) -> Result<u64> {
            self.commit(&[Write::set(key, value.into()).expect(expect)])
        }
        pub fn delete(&self, key: &str, expect: Expectation) -> Result<()> {
            self.commit(&[Write::delete(key).expect(expect)]).map(|_| ())
        }
        pub fn commit(&self, writes: &[Write]) -> Result<u64> {
            if writes.is_empty() {
                return Err(Error::Invalid("writes: at least one".into()));
            }
            if writes.len() > 256 {
                return Err(Error::TooLarge("256 writes a commit".into()));
            }
            let mut keys = BTreeSet::new();
            let mut bytes = 0;
            for Write { key, change, expect } in writes {
                if key.is_empty() || key.len() > 256 || key.chars().any(char::is_control) {
                    return Err(Error::Invalid("key: 1 to 256 bytes without control characters".into()));
                }
                if !keys.insert(key) {
                    return Err(Error::Invalid(format!("writes: two of the key `{key}`")));
                }
                let new = if let Change::Set(value) = change { value.len() } else { 0 };
                if new > 1 << 20 {
                    return Err(Error::TooLarge("1 MiB a value".into()));
                }
                bytes += new.max(with(|s| s.buckets.get(&self.at(key)).map_or(0, |(_, old)| old.len())));
                self.expect(key, *expect)?;
            }
            if bytes > 2 << 20 {
                return Err(Error::TooLarge("2 MiB a commit".into()));
            }
            Ok(with(|s| {
                s.revision += 1;
                for Write { key, change, .. } in writes {
                    match change {
                        Change::Set(value) => s.buckets.insert(self.at(key), (s.revision, value.clone())),
                        Change::Delete => s.buckets.remove(&self.at(key)),
                    };
                }
                s.revision
            }))
        }
        pub fn keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<Key>> {
            let entries = self.scan(prefix, after, limit)?.into_iter();
            Ok(entries.map(|e| Key { key: e.key, revision: e.revision }).collect())
        }
        pub fn scan(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<Entry>> {
            if !(1..=1000).contains(&limit) {
                return Err(Error::Invalid(format!("limit {limit}")));
            }
            let from = match after {
                Some(after) if after >= prefix => Bound::Excluded(self.at(after)),
                _ => Bound::Included(self.at(prefix)),
            };
            let entries = with(|s| {
                let rows = s.buckets.range((from, Bound::Unbounded));
                let ours = rows.take_while(|((bucket, key), _)| *bucket == self.0 && key.starts_with(prefix));
                let entry = |((_, key), (revision, value)): (&(String, String), &(u64, Vec<u8>))| Entry {
                    key: key.clone(),
                    value: value.clone(),
                    revision: *revision,
                };
                ours.take(limit as usize).map(entry).collect()
            });
            Ok(entries)
        }
    }
}

pub mod tools {
    use super::{Error, Result, ToolOutput, ToolSpec, missing, with};

    pub fn available() -> Result<Vec<ToolSpec>> {
        Ok(with(|s| s.tools.values().map(|t| t.spec.clone()).collect()))
    }
    pub fn call(name: &str, arguments: &str) -> Result<ToolOutput> {
        let value = serde_json::from_str(arguments).map_err(|e| Error::Invalid(format!("arguments: {e}")))?;
        let tool = with(|s| {
            s.tool_calls.push((name.into(), arguments.into()));
            s.tools.remove(name)
        });
        // Taken out while it runs: the tool is test code, which may look into the host.
        let tool = tool.ok_or_else(|| missing("tool", name))?;
        let answer = (tool.run)(value);
        with(|s| s.tools.insert(name.into(), tool));
        answer
    }
}

pub mod shields {
    use super::{Channel, Direction, Message, Result, Verdict, missing, with};

    pub fn check(_direction: Direction, _messages: &[Message]) -> Result<Verdict> {
        Ok(with(|s| s.shields.clone()).unwrap_or(Verdict::Pass))
    }
    pub fn check_by(name: &str, direction: Direction, messages: &[Message]) -> Result<Verdict> {
        let run = with(|s| s.named_shields.get(name).cloned()).ok_or_else(|| missing("shield", name))?;
        run(direction, messages)
    }
    /// A shield that is bound with [`super::Host::shield`] gets the text alone, as one message of the assistant's.
    pub fn check_reply_by(name: &str, channel: Channel, conversation: &[Message], text: &str) -> Result<Verdict> {
        match with(|s| s.reply_shields.get(name).cloned()) {
            Some(run) => run(channel, conversation, text),
            None => check_by(name, Direction::Output, &[Message::assistant(text)]),
        }
    }
}

pub mod prompt_store {
    use super::{Error, Result, Selector, missing, with};
    use crate::prompts::{
        Change, Content, Definition, Difference, Filter, Form, Label, LabelChange, LabelMove, Prompt, Rendered,
        Summary, Unit, Version,
    };

    fn unscripted<T>() -> Result<T> {
        Err(Error::Unavailable("the test's prompt store only renders".into()))
    }
    pub fn put(_name: &str, _definition: &Definition, _change: &Change) -> Result<Version> {
        unscripted()
    }
    pub fn get(_name: &str, _selector: &Selector) -> Result<Prompt> {
        unscripted()
    }
    pub fn versions(_name: &str, _after: Option<u32>, _limit: u32) -> Result<Vec<Version>> {
        unscripted()
    }
    pub fn find(_filter: &Filter, _after: Option<&str>, _limit: u32) -> Result<Vec<Summary>> {
        let summary = |name: &String| Summary {
            name: name.clone(),
            latest: 1,
            description: String::new(),
            tags: Vec::new(),
            labels: Vec::new(),
        };
        Ok(with(|s| s.prompts.keys().map(summary).collect()))
    }
    pub fn set_label(_name: &str, _label: &str, _change: &LabelChange) -> Result<Label> {
        unscripted()
    }
    pub fn delete_label(_name: &str, _label: &str, _change: &LabelChange) -> Result<()> {
        unscripted()
    }
    pub fn label_moves(_name: &str) -> Result<Vec<LabelMove>> {
        unscripted()
    }
    pub fn delete(_name: &str, _version: Option<u32>, _force: bool) -> Result<()> {
        unscripted()
    }
    pub fn render(name: &str, selector: &Selector, variables: &str) -> Result<Rendered> {
        with(|s| {
            s.rendered.push((name.into(), selector.clone(), variables.into()));
            let rendered = |content| Rendered {
                version: 1,
                digest: String::new(),
                exposure: None,
                content,
                model_config: "{}".into(),
            };
            s.prompts.get(name).cloned().map(rendered).ok_or_else(|| missing("prompt", name))
        })
    }
    pub fn render_inline(_definition: &Definition, _variables: &str) -> Result<Content> {
        unscripted()
    }
    pub fn diff(_name: &str, _before: &Selector, _after: &Selector, _unit: Unit) -> Result<Vec<Difference>> {
        unscripted()
    }
    pub fn dump(_name: &str, _selector: &Selector, _form: Form) -> Result<String> {
        unscripted()
    }
    pub fn load(_name: Option<&str>, _text: &str, _form: Form, _change: &Change) -> Result<Vec<Version>> {
        unscripted()
    }
}

pub mod memory {
    use super::{Error, Result, filter, missing, with};
    use crate::memories::{Bank, BankKind, Document, Hit, Ingested, Item, Query};
    use serde_json::{Map, Value};
    use std::ops::Bound;

    pub fn create(name: &str, kind: BankKind, config: &str) -> Result<()> {
        let bank = Bank { name: name.into(), kind, config: config.into(), items: 0 };
        let known = with(|s| s.banks.get(name).cloned());
        match known {
            Some(known) if known != bank => Err(Error::Conflict(format!("bank `{name}`"))),
            _ => {
                with(|s| s.banks.insert(name.into(), bank));
                Ok(())
            }
        }
    }
    pub fn banks(after: Option<&str>, limit: u32) -> Result<Vec<Bank>> {
        let from = after.map_or(Bound::Unbounded, |a| Bound::Excluded(a.to_string()));
        Ok(with(|s| {
            let banks = s.banks.range((from, Bound::Unbounded)).take(limit as usize);
            let count = |name: &String| s.memories.keys().filter(|(bank, _)| bank == name).count() as u64;
            banks.map(|(name, bank)| Bank { items: count(name), ..bank.clone() }).collect()
        }))
    }
    pub fn drop(bank: &str) -> Result<()> {
        with(|s| {
            s.memories.retain(|(b, _), _| b != bank);
            s.banks.remove(bank).map(|_| ()).ok_or_else(|| missing("bank", bank))
        })
    }
    pub fn insert(bank: &str, items: &[Item]) -> Result<Vec<String>> {
        let _ = create(bank, BankKind::Hybrid, "{}");
        let insert = |item: &Item| {
            let mut item = item.clone();
            with(|s| {
                if item.id.is_empty() {
                    item.id = s.memories.len().to_string();
                }
                let id = item.id.clone();
                s.memories.insert((bank.into(), id.clone()), item);
                id
            })
        };
        Ok(items.iter().map(insert).collect())
    }
    /// A document of text becomes one chunk, under its id or its name.
    pub fn ingest(bank: &str, document: &Document) -> Result<Ingested> {
        let text = std::str::from_utf8(&document.data).map_err(|e| Error::Invalid(e.to_string()))?;
        let id = if document.id.is_empty() { document.name.clone() } else { document.id.clone() };
        let chunk = Item {
            id: format!("{id}#0"),
            text: text.into(),
            metadata: document.metadata.clone(),
            document: Some(id.clone()),
            expires_at: None,
        };
        insert(bank, &[chunk])?;
        Ok(Ingested { document: id, chunks: 1, bytes: text.len() as u64 })
    }
    pub fn get(bank: &str, ids: &[String]) -> Result<Vec<Item>> {
        Ok(with(|s| ids.iter().filter_map(|id| s.memories.get(&(bank.into(), id.clone())).cloned()).collect()))
    }
    pub fn list(bank: &str, document: Option<&str>, after: Option<&str>, limit: u32) -> Result<Vec<Item>> {
        Ok(with(|s| {
            let items = s.memories.iter().filter(|((b, id), _)| b == bank && after.is_none_or(|a| id.as_str() > a));
            let items = items.map(|(_, item)| item).filter(|i| document.is_none() || i.document.as_deref() == document);
            items.take(limit as usize).cloned().collect()
        }))
    }
    /// Items that contain the query's text and pass its filter, in the order of their ids.
    pub fn search(bank: &str, query: &Query) -> Result<Vec<Hit>> {
        let filter = filter(query.filter.as_deref())?;
        let passes = |item: &Item| {
            let metadata: Map<String, Value> = serde_json::from_str(&item.metadata).unwrap_or_default();
            item.text.contains(&query.text) && filter.as_ref().is_none_or(|f| f.matches(&metadata))
        };
        let hit = |item: &Item| Hit { item: item.clone(), score: 1.0, signals: Vec::new() };
        Ok(with(|s| {
            let items = s.memories.iter().filter(|((b, _), i)| b == bank && passes(i));
            items.take(query.limit as usize).map(|(_, item)| hit(item)).collect()
        }))
    }
    pub fn delete(bank: &str, ids: &[String]) -> Result<u32> {
        let gone = |id: &&String| with(|s| s.memories.remove(&(bank.into(), (*id).clone())).is_some());
        Ok(ids.iter().filter(gone).count() as u32)
    }
    pub fn forget(bank: &str, document: &str) -> Result<u32> {
        Ok(with(|s| {
            let before = s.memories.len();
            s.memories.retain(|(b, _), item| b != bank || item.document.as_deref() != Some(document));
            (before - s.memories.len()) as u32
        }))
    }
}

pub mod vectors {
    use super::{Error, Result, filter, missing, with};
    use crate::vectors::{Entry, Metric, Neighbour, Query};
    use serde_json::{Map, Value};

    /// An index that compares with every vector.
    #[derive(Debug)]
    pub struct Index(String);

    pub fn open(name: &str, dimensions: u32, metric: Metric) -> Result<Index> {
        if with(|s| s.buckets_granted.as_ref().is_some_and(|g| !g.contains(name))) {
            return Err(Error::Denied(format!("buckets: {name}")));
        }
        let same = with(|s| {
            let index = s.indexes.entry(name.into()).or_insert_with(|| (dimensions, metric, Default::default()));
            index.0 == dimensions && index.1 == metric
        });
        if same { Ok(Index(name.into())) } else { Err(Error::Conflict(format!("index `{name}`"))) }
    }
    pub fn drop(name: &str) -> Result<()> {
        with(|s| s.indexes.remove(name)).map(|_| ()).ok_or_else(|| missing("index", name))
    }

    impl Index {
        fn with<T>(
            &self,
            f: impl FnOnce(u32, Metric, &mut std::collections::BTreeMap<String, Entry>) -> Result<T>,
        ) -> Result<T> {
            with(|s| match s.indexes.get_mut(&self.0) {
                Some((dimensions, metric, entries)) => f(*dimensions, *metric, entries),
                None => Err(missing("index", &self.0)),
            })
        }
        pub fn upsert(&self, entries: &[Entry]) -> Result<()> {
            self.with(|dimensions, _, kept| {
                if entries.len() > 256 {
                    return Err(Error::TooLarge("256 entries a call".into()));
                }
                for entry in entries {
                    if entry.vector.len() != dimensions as usize || entry.id.is_empty() || entry.id.len() > 200 {
                        return Err(Error::Invalid(format!("entry `{}`", entry.id)));
                    }
                    if entry.attributes.len() > 4096 {
                        return Err(Error::TooLarge("4096 bytes of attributes".into()));
                    }
                    serde_json::from_str::<Map<String, Value>>(&entry.attributes)?;
                    kept.insert(entry.id.clone(), entry.clone());
                }
                Ok(())
            })
        }
        pub fn delete(&self, ids: &[String]) -> Result<u32> {
            self.with(|_, _, kept| Ok(ids.iter().filter(|id| kept.remove(*id).is_some()).count() as u32))
        }
        pub fn search(&self, query: &Query) -> Result<Vec<Neighbour>> {
            self.with(|dimensions, metric, kept| {
                if query.vector.len() != dimensions as usize || !(1..=1000).contains(&query.limit) {
                    return Err(Error::Invalid("query".into()));
                }
                let filter = filter(query.filter.as_deref())?;
                let passes = |entry: &&Entry| {
                    let attributes: Map<String, Value> = serde_json::from_str(&entry.attributes).unwrap_or_default();
                    filter.as_ref().is_none_or(|f| f.matches(&attributes))
                };
                let neighbour = |entry: &Entry| Neighbour {
                    id: entry.id.clone(),
                    score: score(metric, &query.vector, &entry.vector),
                    attributes: entry.attributes.clone(),
                };
                let mut found: Vec<Neighbour> = kept.values().filter(passes).map(neighbour).collect();
                found.sort_by(|a, b| b.score.total_cmp(&a.score));
                found.truncate(query.limit as usize);
                Ok(found)
            })
        }
        pub fn size(&self) -> Result<u64> {
            self.with(|_, _, kept| Ok(kept.len() as u64))
        }
    }

    fn score(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        match metric {
            Metric::Cosine => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE),
            Metric::Dot => dot(a, b),
            Metric::Euclidean => -a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>().sqrt(),
        }
    }
}

//! Constrained decoding: schemas and grammars become masks over the next token.
//!
//! Grammars compile on threads of their own, one at a time for each tenant, and are kept by digest, bounded. A running
//! constraint belongs to its sequence alone. Invariant: while a grammar lives, every completion that ends by itself
//! belongs to its language; what cannot be enforced is refused and never weakened.

mod numbers;

use crate::sampler::Allowed;
use crate::settings::GrammarSettings;
use crate::vocabulary::Vocabulary;
use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use stockade_core::id::TenantId;
use stockade_core::infer::{Constraint, InferError};
use toktrie::{SimpleVob, TokEnv, TokTrie, TokenId, TokenizerEnv};

/// JSON between two lexemes: enough for deep indentation, not enough to loop in for ever.
const JSON_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,40}";
const COMPILER_STACK_BYTES: usize = 16 << 20;

/// A grammar at work in one sequence.
pub struct Grammar(Box<Matcher>);

impl std::fmt::Debug for Grammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grammar")
    }
}

/// The tokens that may come next.
pub struct Mask(SimpleVob);

impl Allowed for Mask {
    fn restrict(&self, row: &mut [f32]) {
        let (known, beyond) = row.split_at_mut(row.len().min(self.0.len()));
        for (word, logits) in self.0.as_slice().iter().zip(known.chunks_mut(u32::BITS as usize)) {
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        beyond.fill(f32::NEG_INFINITY);
    }
}

impl Mask {
    pub fn allows(&self, token: u32) -> bool {
        self.0.is_allowed(token)
    }
}

impl Grammar {
    pub fn mask(&mut self) -> Result<Mask, InferError> {
        self.0.compute_mask_or_eos().map(Mask).map_err(|e| refused(&e.to_string()))
    }

    /// Advances by a token that the mask allowed. True when nothing may follow.
    pub fn accept(&mut self, token: u32) -> Result<bool, InferError> {
        self.0.consume_token(token).map_err(|e| refused(&e.to_string()))?;
        Ok(self.0.is_stopped())
    }
}

pub type OnCompiled = Box<dyn FnOnce(Result<Grammar, InferError>) + Send>;

/// Compiles and keeps grammars for one vocabulary.
pub struct Grammars {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    settings: GrammarSettings,
    /// Absent when the model has no end token.
    factory: Option<ParserFactory>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    kept: HashMap<Key, Kept>,
    queue: VecDeque<(Box<Job>, OnCompiled)>,
    /// Tenants whose grammar is compiling.
    busy: Vec<TenantId>,
    clock: u64,
    closed: bool,
}

type Key = (TenantId, [u8; 32]);

struct Kept {
    prototype: Matcher,
    used: u64,
}

/// A grammar to compile.
pub struct Job {
    key: Key,
    source: TopLevelGrammar,
    since: Instant,
}

pub enum Prepared {
    Ready(Grammar),
    Job(Box<Job>),
}

impl Grammars {
    pub fn new(vocabulary: &Vocabulary, settings: GrammarSettings) -> Result<Self, InferError> {
        let factory = match vocabulary.trie() {
            None => None,
            Some(trie) => {
                let env: TokEnv = Arc::new(Env(trie));
                let mut factory = ParserFactory::new_simple(&env).map_err(|e| refused(&e.to_string()))?;
                factory.quiet();
                let limits = factory.limits_mut();
                limits.max_lexer_states = settings.max_lexer_states;
                limits.max_grammar_size = settings.max_grammar_size;
                limits.initial_lexer_fuel = settings.initial_lexer_fuel;
                limits.step_lexer_fuel = settings.step_lexer_fuel;
                limits.step_max_items = settings.step_max_items;
                limits.verbose_errors = false;
                Some(factory)
            }
        };
        let threads = settings.compile_threads.max(1);
        let shared = Arc::new(Shared { settings, factory, state: Mutex::default(), wake: Condvar::new() });
        let spawn = |id| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("grammar-{id}"))
                .stack_size(COMPILER_STACK_BYTES)
                .spawn(move || shared.compile_all())
        };
        let threads: Result<Vec<_>, _> = (0..threads).map(spawn).collect();
        let threads = threads.map_err(|e| InferError::Backend { stage: "starting threads", source: Box::new(e) })?;
        Ok(Self { shared, threads })
    }

    /// Checks what can be checked at once. A kept grammar is there at once; another is compiled by [`Self::start`].
    pub fn prepare(&self, tenant: &TenantId, constraint: &Constraint) -> Result<Prepared, InferError> {
        if self.shared.factory.is_none() {
            return Err(refused("the model has no end token"));
        }
        let (digest, source) = source(constraint, self.shared.settings.max_bytes)?;
        let key = (tenant.clone(), digest);
        let mut state = self.shared.state.lock();
        state.clock += 1;
        let clock = state.clock;
        Ok(match state.kept.get_mut(&key) {
            Some(kept) => {
                kept.used = clock;
                Prepared::Ready(Grammar(Box::new(kept.prototype.deep_clone())))
            }
            None => Prepared::Job(Box::new(Job { key, source, since: Instant::now() })),
        })
    }

    /// Compiles beside the caller; `done` is called once, from a compiling thread, unless the host shuts down.
    pub fn start(&self, job: Box<Job>, done: OnCompiled) {
        self.shared.state.lock().queue.push_back((job, done));
        self.shared.wake.notify_one();
    }

    #[cfg(test)]
    fn kept(&self) -> usize {
        self.shared.state.lock().kept.len()
    }
}

impl Grammars {
    /// Compiles nothing more; what is queued is dropped, what is compiling ends first.
    pub fn close(&mut self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.queue.clear();
        drop(state);
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a grammar thread had panicked");
            }
        }
    }
}

impl Drop for Grammars {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn compile_all(&self) {
        while let Some((job, done)) = self.next() {
            let Job { key, source, since } = *job;
            let late = since.elapsed() > self.settings.compile_deadline;
            let compiled = if late { Err(refused("compiling took too long")) } else { self.compile_one(source) };
            let mut state = self.state.lock();
            state.busy.retain(|t| *t != key.0);
            let result = compiled.map(|prototype| {
                let grammar = Grammar(Box::new(prototype.deep_clone()));
                self.keep(&mut state, key, prototype);
                grammar
            });
            drop(state);
            // A job of this tenant may have waited for this one.
            self.wake.notify_one();
            done(result);
        }
    }

    fn next(&self) -> Option<(Box<Job>, OnCompiled)> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            let State { queue, busy, .. } = &mut *state;
            if let Some(at) = queue.iter().position(|(job, _)| !busy.contains(&job.key.0)) {
                let next = queue.remove(at).expect("just found");
                busy.push(next.0.key.0.clone());
                return Some(next);
            }
            self.wake.wait(&mut state);
        }
    }

    fn compile_one(&self, source: TopLevelGrammar) -> Result<Matcher, InferError> {
        let factory = self.factory.as_ref().expect("checked before queueing");
        let compile = || Matcher::new(factory.create_parser(source));
        let matcher = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile))
            .map_err(|_| refused("the grammar compiler failed"))?;
        match matcher.get_error() {
            Some(error) => Err(refused(&error)),
            None => Ok(matcher),
        }
    }

    fn keep(&self, state: &mut State, key: Key, prototype: Matcher) {
        state.clock += 1;
        let used = state.clock;
        let tenant = key.0.clone();
        state.kept.insert(key, Kept { prototype, used });
        let oldest = |kept: &HashMap<Key, Kept>, of: &dyn Fn(&Key) -> bool| {
            let candidates = kept.iter().filter(|(key, _)| of(key));
            candidates.min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone())
        };
        let own = |key: &Key| key.0 == tenant;
        while state.kept.keys().filter(|k| own(k)).count() > self.settings.cached_per_tenant {
            let Some(key) = oldest(&state.kept, &own) else {
                break;
            };
            state.kept.remove(&key);
        }
        while state.kept.len() > self.settings.cached {
            let Some(key) = oldest(&state.kept, &|_| true) else {
                break;
            };
            state.kept.remove(&key);
        }
    }
}

struct Env(TokTrie);

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }
    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(bytes)
    }
    /// Greedy is not what the tokenizer does, so no token is ever forced: the model chooses among all spellings.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

fn refused(reason: &str) -> InferError {
    let reason = reason.lines().next().unwrap_or_default();
    InferError::Constraint(reason.chars().take(500).collect())
}

/// A constraint's digest and its form for the compiler.
fn source(constraint: &Constraint, max_bytes: usize) -> Result<([u8; 32], TopLevelGrammar), InferError> {
    let (kind, text) = match constraint {
        Constraint::JsonObject => ("json-object", String::new()),
        Constraint::JsonSchema(schema) => ("json-schema", schema.to_string()),
        Constraint::Regex(text) => ("regex", text.clone()),
        Constraint::Lark(text) => ("lark", text.clone()),
    };
    if text.len() > max_bytes {
        return Err(refused(&format!("{} bytes, more than {max_bytes}", text.len())));
    }
    let grammar = match constraint {
        Constraint::JsonObject => GrammarWithLexer::from_json_schema(strict(&json!({"type": "object"}))?),
        Constraint::JsonSchema(schema) => GrammarWithLexer::from_json_schema(strict(schema)?),
        Constraint::Regex(regex) => GrammarWithLexer::from_regex(regex),
        Constraint::Lark(text) if text.trim().is_empty() => {
            return Err(refused("the grammar is empty"));
        }
        Constraint::Lark(text) => {
            numbers::check_lark(text)?;
            GrammarWithLexer::from_lark(text.clone())
        }
    };
    let mut hash = Sha256::new();
    hash.update(kind);
    hash.update([0]);
    hash.update(text);
    Ok((hash.finalize().into(), TopLevelGrammar::from_grammar(grammar)))
}

/// The schema with our options for the compiler in place of any of the caller's: `lenient` would drop what it cannot
/// enforce, and unbounded white space lets small models loop.
pub(crate) fn strict(schema: &Value) -> Result<Value, InferError> {
    let mut schema = match schema {
        Value::Object(map) => map.clone(),
        Value::Bool(true) => serde_json::Map::new(),
        Value::Bool(false) => return Err(refused("nothing satisfies the schema `false`")),
        _ => return Err(refused("a schema is an object or a boolean")),
    };
    schema.values().try_for_each(numbers::check_schema)?;
    schema.insert("x-guidance".into(), json!({"whitespace_pattern": JSON_SPACE}));
    Ok(Value::Object(schema))
}

#[cfg(test)]
mod tests;

//! Every knob of the engine, with unit, default and reason. Read once by `app`; nothing here is looked up later.

use std::time::Duration;

/// Bounds and targets of one engine. The defaults suit a small CPU host.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Bytes that all models together may take: weights, rows and KV pages. `None`: four fifths of this machine's or
    /// control group's memory.
    pub memory_bytes: Option<u64>,
    /// Threads that compute, shared by all models. `None`: the physical cores.
    pub threads: Option<usize>,
    /// Requests that may wait for a model; one more is refused as overloaded.
    pub max_waiting: usize,
    /// Of those, how many one tenant may hold, so that one tenant cannot fill the queue for all.
    pub max_waiting_per_tenant: usize,
    /// Sequences that run at once; more rows a step than this bring nothing on a CPU.
    pub max_running: usize,
    /// Most rows of a step, prompt chunks and decodes together.
    pub max_step_tokens: usize,
    /// How long a step may take while somebody waits for a next token: prompt chunks are cut to fit.
    pub inter_token_target: Duration,
    /// Rows of logits that a log-likelihood takes at a time: `vocab * 4` bytes each.
    pub score_rows: usize,
    /// Events buffered for a reader; a reader this far behind has its sequence parked.
    pub stream_events: usize,
    /// KV pages kept free when a sequence is admitted, so that running ones can grow. In thousandths of all pages.
    pub watermark_permille: usize,
    /// Longest input text in bytes that is tokenised.
    pub max_text_bytes: usize,
    /// Limits of schemas and grammars.
    pub grammar: GrammarSettings,
    /// Token rows of one batch of an embedder.
    pub embed_batch_tokens: usize,
    /// Inputs of one embedding request.
    pub max_embed_inputs: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_bytes: None,
            threads: None,
            max_waiting: 256,
            max_waiting_per_tenant: 128,
            max_running: 32,
            max_step_tokens: 512,
            inter_token_target: Duration::from_millis(100),
            score_rows: 32,
            stream_events: 64,
            watermark_permille: 10,
            max_text_bytes: 8 << 20,
            grammar: GrammarSettings::default(),
            embed_batch_tokens: 4096,
            max_embed_inputs: 2048,
        }
    }
}

/// Limits of constrained decoding. Lower than llguidance's own, which admit gigabytes of lexer states.
#[derive(Debug, Clone, PartialEq)]
pub struct GrammarSettings {
    /// Longest schema or grammar in bytes.
    pub max_bytes: usize,
    /// How long a grammar may take to compile, waiting for its turn included.
    pub compile_deadline: Duration,
    /// Threads that compile; they run beside the engine, never on it.
    pub compile_threads: usize,
    /// Compiled grammars kept for each tenant, least recently used first out.
    pub cached_per_tenant: usize,
    /// Compiled grammars kept over all tenants.
    pub cached: usize,
    /// Lexer states of 1 to 2 KB each.
    pub max_lexer_states: usize,
    /// Symbols in productions.
    pub max_grammar_size: usize,
    /// Work for the first lexer, about 50,000 a millisecond.
    pub initial_lexer_fuel: u64,
    /// Work for one token's mask, about 14,000 a millisecond.
    pub step_lexer_fuel: u64,
    /// Earley items of one token's mask, about 20,000 a millisecond.
    pub step_max_items: usize,
}

impl Default for GrammarSettings {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 10,
            compile_deadline: Duration::from_secs(5),
            compile_threads: 1,
            cached_per_tenant: 16,
            cached: 128,
            max_lexer_states: 20_000,
            max_grammar_size: 200_000,
            initial_lexer_fuel: 1_000_000,
            step_lexer_fuel: 200_000,
            step_max_items: 50_000,
        }
    }
}

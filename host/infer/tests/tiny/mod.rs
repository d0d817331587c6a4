//! A network of a few lines whose logits are a hash of everything it may depend on, so that any error in paging,
//! chunking or batching shows in the first token.

#![allow(dead_code, reason = "each test binary uses a part of the harness")]

use serde_json::{Map, Value};
use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use stockade_core::chat::{Message, ToolSpec};
use stockade_core::event::{Event, FinishReason, TokenLogprob, ToolCallDelta, Usage};
use stockade_core::id::{Digest, ModelId, TenantId};
use stockade_core::infer::{
    EventStream, GenerateRequest, InferError, Inference, ModelInfo, ModelKind, Prompt, Rendered, Sampling,
    TokenizeOptions,
};
use stockade_infer::{Engine, GeneratorParts, ModelText, Settings, Vocabulary};
use stockade_model::ModelError;
use stockade_model::decoder::{Decoder, DecoderSpec, LogitRows, PAGE_TOKENS, Segment};

pub const BOS: u32 = 256;
pub const EOS: u32 = 257;
/// Its presence anywhere in a sequence makes the row's logits NaN.
pub const NAN: u32 = 258;
/// Makes a step fail.
pub const FAIL: u32 = 259;
/// Makes a step panic.
pub const PANIC: u32 = 260;
const VOCAB: usize = 264;

/// What a test sees and steers of the network.
#[derive(Default)]
pub struct Probe {
    /// Rows of each segment, step by step.
    pub steps: Mutex<Vec<Vec<usize>>>,
    /// Steps wait while set.
    held: Mutex<bool>,
    wake: Condvar,
    row_cost: Mutex<Duration>,
}

impl Probe {
    pub fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.wake.notify_all();
    }
    pub fn row_cost(&self, cost: Duration) {
        *self.row_cost.lock().unwrap() = cost;
    }
}

pub struct Tiny {
    spec: DecoderSpec,
    /// Two layers of "keys and values": one word for each slot.
    pages: Vec<[[u64; PAGE_TOKENS]; 2]>,
    probe: Arc<Probe>,
}

fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.rotate_left(23) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

impl Tiny {
    fn attend(&self, layer: usize, pages: &[u32], position: usize) -> u64 {
        (0..=position)
            .fold(layer as u64, |acc, p| mix(acc, self.pages[pages[p / PAGE_TOKENS] as usize][layer][p % PAGE_TOKENS]))
    }
}

impl Decoder for Tiny {
    fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    fn allocate_pages(&mut self, pages: usize) -> Result<(), ModelError> {
        self.pages = vec![[[0xdead; PAGE_TOKENS]; 2]; pages];
        Ok(())
    }

    fn step(
        &mut self,
        segments: &[Segment<'_>],
        logits: &mut Vec<f32>,
        _: &dyn Fn() -> bool,
    ) -> Result<(), ModelError> {
        let mut held = self.probe.held.lock().unwrap();
        while *held {
            held = self.probe.wake.wait(held).unwrap();
        }
        drop(held);
        let rows: usize = segments.iter().map(|s| s.tokens.len()).sum();
        self.probe.steps.lock().unwrap().push(segments.iter().map(|s| s.tokens.len()).collect());
        std::thread::sleep(*self.probe.row_cost.lock().unwrap() * rows as u32);
        let mut written = HashSet::new();
        logits.clear();
        for segment in segments {
            assert!(!segment.tokens.is_empty());
            assert!(segment.pages.len() * PAGE_TOKENS >= segment.start + segment.tokens.len());
            for (i, &token) in segment.tokens.iter().enumerate() {
                if token == FAIL {
                    return Err(ModelError::Cancelled);
                }
                assert!(token != PANIC, "asked to panic");
                let position = segment.start + i;
                let (page, slot) = (segment.pages[position / PAGE_TOKENS] as usize, position % PAGE_TOKENS);
                assert!(written.insert((page, slot)), "two sequences write one slot");
                self.pages[page][0][slot] = mix(u64::from(token), position as u64);
                let hidden = self.attend(0, segment.pages, position);
                self.pages[page][1][slot] = hidden;
                let wanted = match segment.logits {
                    LogitRows::None => false,
                    LogitRows::Last => i + 1 == segment.tokens.len(),
                    LogitRows::All => true,
                };
                if !wanted {
                    continue;
                }
                let out = self.attend(1, segment.pages, position);
                let broken = token == NAN;
                logits.extend((0..VOCAB as u64).map(|token| {
                    if broken {
                        return f32::NAN;
                    }
                    let noise = (mix(out, token) >> 40) as f32 / (1 << 24) as f32 * 8.0;
                    match token {
                        32..127 => noise + 6.0,
                        256.. => noise - 4.0,
                        _ => noise,
                    }
                }));
            }
        }
        Ok(())
    }

    fn copy_page(&mut self, from: u32, to: u32) {
        self.pages[to as usize] = self.pages[from as usize];
    }
}

/// Bytes are tokens; a template that knows no tools.
pub struct ByteText;

impl ModelText for ByteText {
    fn encode(&self, text: &str, options: TokenizeOptions) -> Result<Vec<u32>, InferError> {
        let bos = options.add_special.then_some(BOS);
        Ok(bos.into_iter().chain(text.bytes().map(u32::from)).collect())
    }
    fn decode(&self, tokens: &[u32]) -> Result<String, InferError> {
        let bytes: Vec<u8> = tokens.iter().filter_map(|&t| u8::try_from(t).ok()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
    fn template(&self) -> Option<&str> {
        Some("{{ messages }}")
    }
    fn render(&self, messages: &[Message], _: &[ToolSpec], _: &Map<String, Value>) -> Result<Rendered, InferError> {
        let mut text: String = messages.iter().map(|m| format!("[{}]{}", m.role.as_str(), m.joined_text())).collect();
        text.push_str("[assistant]");
        Ok(Rendered { tokens: text.bytes().map(u32::from).collect(), text })
    }
}

pub fn vocabulary() -> Vocabulary {
    let names = ["<bos>", "<eos>", "<nan>", "<fail>", "<panic>", "<a>", "<b>", "<c>"];
    let bytes = (0..=255u8).map(|b| (vec![b], false));
    Vocabulary::new(bytes.chain(names.iter().map(|n| (n.as_bytes().to_vec(), true))), vec![EOS])
}

pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub fn model() -> ModelId {
    ModelId::new("tiny").unwrap()
}

pub fn info(kind: ModelKind) -> ModelInfo {
    ModelInfo {
        id: model(),
        kind,
        digest: Digest([3; 32]),
        base: None,
        context_tokens: 4096,
        parameters: 0,
        embedding_dimensions: None,
        architecture: "tiny".into(),
        quantization: "F32".into(),
        created: 0,
    }
}

/// An engine with one tiny model of `pages` pages.
pub fn engine(pages: usize, settings: Settings) -> (Engine, Arc<Probe>) {
    let probe = Arc::new(Probe::default());
    let spec = DecoderSpec { vocab: VOCAB, context_tokens: 4096, page_bytes: 512, weight_bytes: 0, row_bytes: 8 };
    let decoder = Box::new(Tiny { spec, pages: Vec::new(), probe: Arc::clone(&probe) });
    let engine = Engine::new(settings);
    let parts = GeneratorParts {
        decoder,
        text: Arc::new(ByteText),
        vocabulary: vocabulary(),
        info: info(ModelKind::Generator),
        pages,
        labels: Vec::new(),
        kv_type: "u64",
        base: None,
        source: None,
    };
    engine.add_generator(parts).unwrap();
    (engine, probe)
}

pub fn request(tokens: Vec<u32>, max_tokens: u32) -> GenerateRequest {
    let sampling = Sampling {
        max_tokens: Some(max_tokens),
        seed: Some(7),
        logprobs: Some(2),
        ignore_eos: true,
        ..Sampling::default()
    };
    GenerateRequest { model: model(), tenant: tenant("a"), prompt: Prompt::Tokens(tokens), sampling, constraint: None }
}

/// Tokens of a prompt that no other `seed` shares.
pub fn prompt(seed: u64, length: usize) -> Vec<u32> {
    (0..length as u64).map(|i| (mix(seed, i) % 95) as u32 + 32).collect()
}

/// A whole reply.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Reply {
    pub text: String,
    pub reasoning: String,
    pub logprobs: Vec<TokenLogprob>,
    pub calls: Vec<ToolCallDelta>,
    pub reason: Option<FinishReason>,
    pub usage: Usage,
    pub error: Option<String>,
}

impl Reply {
    /// What must not depend on caches and batches.
    pub fn result(&self) -> (String, Vec<TokenLogprob>, Option<FinishReason>) {
        (self.text.clone(), self.logprobs.clone(), self.reason)
    }
}

pub fn collect(mut stream: EventStream) -> Reply {
    let mut reply = Reply::default();
    while let Some(event) = stream.blocking_recv() {
        assert!(reply.reason.is_none() && reply.error.is_none(), "nothing follows the end");
        match event {
            Ok(Event::Text(delta)) => {
                reply.text.push_str(&delta.text);
                reply.logprobs.extend(delta.logprobs);
            }
            Ok(Event::Reasoning { text }) => reply.reasoning.push_str(&text),
            Ok(Event::ToolCall(call)) => reply.calls.push(call),
            Ok(Event::Step(step)) => panic!("a model has no steps: {step:?}"),
            Ok(Event::End(end)) => (reply.reason, reply.usage) = (Some(end.reason), end.usage),
            Err(error) => reply.error = Some(error.to_string()),
        }
    }
    assert!(reply.reason.is_some() || reply.error.is_some(), "a stream ends with an end or an error");
    reply
}

pub fn generate(engine: &Engine, request: GenerateRequest) -> Reply {
    collect(engine.generate(request).unwrap())
}

/// Waits for a condition that the engine thread brings about.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

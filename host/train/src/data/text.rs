//! The model's tokenizer and chat template, as training uses them, and which tokens of a conversation carry labels.
//!
//! Invariant: the tokens before an answer's first label are those that serving would send as the prompt of that answer:
//! both come from `stockade_model::conversation`, and the text is cut there, so that no token spans prompt and answer.

use super::{IGNORE, Sequence};
use serde_json::Map;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use stockade_core::chat::{Message, Role, ToolSpec};
use stockade_core::train::TrainError;
use stockade_model::conversation::{self, RenderOptions};
use stockade_model::template::{ChatTemplate, Rendered};
use stockade_model::tokenizer::EncodeOptions;
use stockade_model::{Checkpoint, ModelConfig, ModelError, Tokenizer};

/// What templates see as the present: 26 July 2024, which Llama's print where they know no time at all. The real time
/// would make a run's data depend on its day.
const NOW: Duration = Duration::from_secs(1_721_952_000);
/// Texts that are encoded at once; longer ones are cut at an end of line.
const PIECE_BYTES: usize = 1 << 20;
/// Control tokens that end a document, the first that the vocabulary has.
const DOCUMENT_ENDS: [&str; 2] = ["<|end_of_text|>", "<|endoftext|>"];

/// Text to tokens with labels, for one model.
pub struct ModelText {
    tokenizer: Tokenizer,
    template: Option<(ChatTemplate, String)>,
    /// Tokens that end an answer: a generation stops at them.
    ends: Vec<u32>,
    /// Put after a completion.
    end: Option<u32>,
    /// Put after a document.
    document_end: Option<u32>,
    vocabulary: usize,
    digest: String,
}

impl ModelText {
    /// The tokenizer at `path` (a model's folder or `.gguf` file, or a folder of tokenizer files) for a model of `config`.
    ///
    /// # Errors
    /// [`TrainError::Model`] for files that cannot be read, or a vocabulary larger than the model's.
    pub fn open(path: &Path, config: &ModelConfig) -> Result<Self, TrainError> {
        let name = path.display().to_string();
        let failed = |e: ModelError| TrainError::Model { name: name.clone(), reason: e.to_string() };
        let (tokenizer, template, files) = if path.join("tokenizer.json").is_file() {
            let tokenizer = Tokenizer::from_folder(path).map_err(failed)?;
            let template = ChatTemplate::from_folder(path, &tokenizer).map_err(failed)?;
            let files =
                std::fs::read(path.join("tokenizer.json")).map_err(|e| failed_io("reading the tokenizer", e))?;
            (tokenizer, template, Sha256::digest(files).to_vec())
        } else {
            let checkpoint = Checkpoint::open(path).map_err(failed)?;
            let tokenizer = Tokenizer::open(&checkpoint).map_err(failed)?;
            let template = ChatTemplate::open(&checkpoint, &tokenizer).map_err(failed)?;
            let digest = checkpoint.digest().map_err(failed)?;
            (tokenizer, template, digest.0.to_vec())
        };
        if tokenizer.vocab_size() > config.vocab_size {
            let reason = format!("{} tokens for a model of {}", tokenizer.vocab_size(), config.vocab_size);
            return Err(TrainError::Model { name, reason });
        }
        let special = tokenizer.special();
        let mut ends = config.eos_ids.clone();
        ends.extend(special.eos);
        let end = special.eos.or_else(|| config.eos_ids.first().copied());
        let document_end = DOCUMENT_ENDS.iter().find_map(|text| tokenizer.added_id(text)).or(end);
        let template = template.map(|template| {
            let source = template.source();
            (template, source)
        });
        let mut hasher = Sha256::new();
        hasher.update(files);
        hasher.update(template.as_ref().map_or("", |(_, source)| source));
        hasher.update(format!("{special:?} {ends:?} {end:?} {document_end:?}"));
        let digest = hex(&hasher.finalize());
        Ok(Self { tokenizer, template, ends, end, document_end, vocabulary: config.vocab_size, digest })
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// Tokens at which a generation stops.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Rows of the embedding: token ids are below it.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Sha256 over tokenizer, template and end tokens, in hex.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// A text with the tokenizer's own frame around it.
    pub fn framed(&self, text: &str, parse_special: bool) -> Result<Vec<u32>, String> {
        let whole = self.encode(text, EncodeOptions { add_special: text.len() <= PIECE_BYTES, parse_special })?;
        Ok(self.without_second_start(whole))
    }

    /// A document: framed, with the token that ends documents; every token but the first is learned.
    pub fn document(&self, text: &str, parse_special: bool) -> Result<Sequence, String> {
        let mut tokens = self.start();
        tokens.extend(self.encode(text, EncodeOptions { add_special: false, parse_special })?);
        let mut tokens = self.without_second_start(tokens);
        tokens.extend(self.document_end.filter(|end| tokens.last() != Some(end)));
        let labels = (0..tokens.len()).map(|i| if i == 0 { IGNORE } else { tokens[i] as i32 }).collect();
        Ok(Sequence { tokens, labels })
    }

    /// A raw prompt and its completion, whose tokens are learned; `ended`: with the token that ends answers.
    pub fn completion(
        &self,
        prompt: &str,
        completion: &str,
        parse_special: bool,
        ended: bool,
    ) -> Result<Sequence, String> {
        let mut tokens = self.start();
        tokens.extend(self.encode(prompt, EncodeOptions { add_special: false, parse_special })?);
        let mut tokens = self.without_second_start(tokens);
        let from = tokens.len().max(1);
        tokens.extend(self.encode(completion, EncodeOptions { add_special: false, parse_special })?);
        tokens.extend(self.end.filter(|end| ended && tokens.last() != Some(end)));
        let labels = (0..tokens.len()).map(|i| if i < from { IGNORE } else { tokens[i] as i32 }).collect();
        Ok(Sequence { tokens, labels })
    }

    /// The prompt that serving sends for `messages`.
    pub fn prompt(&self, messages: &[Message], tools: &[ToolSpec]) -> Result<Vec<u32>, String> {
        let (template, source) = self.template()?;
        let adapted = conversation::adapted(source, messages, tools);
        self.encode_rendered(&render(template, &adapted.messages, adapted.tools, true)?)
    }

    /// A conversation. Labelled are the tokens of the assistant's messages that `learned` marks, their end tokens
    /// included; nothing else, or everything with `label_prompt`. Tokens behind the last label are left out.
    pub fn conversation(
        &self,
        messages: &[Message],
        learned: &[bool],
        tools: &[ToolSpec],
        label_prompt: bool,
    ) -> Result<Sequence, String> {
        let (template, source) = self.template()?;
        let adapted = conversation::adapted(source, messages, tools);
        // The adapted list may hold more messages (calls one by one) or one more at the front (tools spelled out).
        let learns = |index: usize| {
            let shift = adapted.messages.len() as isize - messages.len() as isize;
            match (shift, adapted.native) {
                (0, _) => Some(learned[index]),
                (1, None) => Some(index == 0 || learned[index - 1]),
                _ if learned.iter().all(|&learned| learned) => Some(true),
                _ => None,
            }
        };
        let whole = render(template, &adapted.messages, adapted.tools, false)?;
        let text = whole.text().into_owned();
        let (mut rest, mut done) = (whole, 0);
        let mut out = Sequence::default();
        // Labels of the segment that is being read, which begins with an answer.
        let mut answers = None;
        for (i, message) in adapted.messages.iter().enumerate() {
            if message.role != Role::Assistant {
                continue;
            }
            let learned = learns(i).ok_or("`weight` beside several calls in one message is not supported")?;
            let prompt = render(template, &adapted.messages[..i], adapted.tools, true)?;
            let prompt = prompt.text();
            if !text.starts_with(&*prompt) || prompt.len() < done {
                return Err(format!(
                    "the chat template writes the turns before messages[{i}] otherwise once it is answered"
                ));
            }
            let cut = rest.split_at(prompt.len() - done).ok_or("the chat template cuts a character")?;
            self.segment(&cut.0, answers, &mut out)?;
            (rest, done) = (cut.1, prompt.len());
            answers = Some(learned);
        }
        self.segment(&rest, answers, &mut out)?;
        if label_prompt {
            out.labels = out.tokens.iter().map(|&token| token as i32).collect();
        } else {
            let end = out.labels.iter().rposition(|&label| label != IGNORE).map_or(out.labels.len(), |last| last + 1);
            out.tokens.truncate(end);
            out.labels.truncate(end);
        }
        if let Some(first) = out.labels.first_mut() {
            *first = IGNORE;
        }
        Ok(out)
    }

    /// Appends a piece of a conversation. `answers`: whether it begins with an answer, and one that is learned.
    fn segment(&self, piece: &Rendered, answers: Option<bool>, out: &mut Sequence) -> Result<(), String> {
        let tokens = self.encode_rendered(piece)?;
        let labelled = match answers {
            None => 0,
            Some(learned) => {
                let end = tokens.iter().position(|token| self.ends.contains(token));
                let end = end.ok_or("the chat template ends an answer with none of the model's end tokens")?;
                if learned { end + 1 } else { 0 }
            }
        };
        out.labels.extend(tokens.iter().enumerate().map(|(i, &t)| if i < labelled { t as i32 } else { IGNORE }));
        out.tokens.extend(tokens);
        Ok(())
    }

    fn template(&self) -> Result<&(ChatTemplate, String), String> {
        self.template.as_ref().ok_or_else(|| "the model has no chat template".into())
    }

    fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<u32>, String> {
        self.tokenizer.encode_rendered(rendered).map_err(|e| e.to_string())
    }

    /// What the tokenizer puts before a text.
    fn start(&self) -> Vec<u32> {
        let framed = self.tokenizer.encode("", EncodeOptions { add_special: true, parse_special: false });
        let bos = self.tokenizer.special().bos;
        framed.unwrap_or_default().into_iter().take_while(|token| Some(*token) == bos).collect()
    }

    /// Raw texts that were rendered elsewhere bring a BOS of their own.
    fn without_second_start(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        let bos = self.tokenizer.special().bos;
        if bos.is_some() && tokens.first().copied() == bos && tokens.get(1).copied() == bos {
            tokens.remove(0);
        }
        tokens
    }

    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, String> {
        let mut tokens = Vec::new();
        for piece in pieces(text) {
            tokens.extend(self.tokenizer.encode(piece, options).map_err(|e| e.to_string())?);
        }
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            return Err(format!("token {token} is not below the model's vocabulary of {}", self.vocabulary));
        }
        Ok(tokens)
    }
}

fn render(
    template: &ChatTemplate,
    messages: &[Message],
    tools: &[ToolSpec],
    add_generation_prompt: bool,
) -> Result<Rendered, String> {
    let now: SystemTime = UNIX_EPOCH + NOW;
    let options = RenderOptions { add_generation_prompt, args: &Map::new(), now };
    conversation::render(template, messages, tools, options).map_err(|e| e.to_string())
}

/// Pieces of at most [`PIECE_BYTES`], cut behind an end of line, else a space, else between characters.
fn pieces(mut text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    while text.len() > PIECE_BYTES {
        let mut end = PIECE_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let window = &text[..end];
        let cut = window.rfind('\n').map(|at| at + 1).or_else(|| window.rfind(' ')).filter(|&at| at > 0);
        let (piece, rest) = text.split_at(cut.unwrap_or(end));
        pieces.push(piece);
        text = rest;
    }
    pieces.push(text);
    pieces
}

fn failed_io(stage: &'static str, error: std::io::Error) -> TrainError {
    TrainError::Io { stage, source: error.into() }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! Chat templates: a conversation becomes the model's prompt, by the Jinja text that came with the model.
//!
//! The environment is the one Hugging Face renders with (block trimming, loop controls, Python's string methods and
//! JSON), bounded in steps, nesting and output, without loaders. A template that builds a huge string in memory
//! without printing it is bounded by its steps alone; templates come with weights that an operator chose.
//!
//! Invariant: **content cannot forge control tokens.** Every string that is not the template's own is marked before
//! rendering: a noncharacter that occurs nowhere in the input is put inside each spelling of a control token, also an
//! unfinished one at a string's end. So the template's tokens are the only whole ones in the output;
//! [`Tokenizer::encode_rendered`] reads those, takes the marks out and encodes all the rest as text. Where content
//! spells no token there are no marks, and the ids are those of the plain rendered text.

mod clock;
mod marker;
mod python;

use crate::checkpoint::{Checkpoint, exists, read_small};
use crate::tokenizer::added::{AddedToken, AddedTokens};
use crate::{ModelError, Tokenizer};
use marker::Marker;
use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json};
use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::time::SystemTime;
use stockade_core::Fault;

/// Longest template in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// Longest output in bytes.
pub const MAX_RENDERED_BYTES: usize = crate::tokenizer::MAX_TEXT_BYTES;
/// Steps of the template machine; a long conversation takes some hundred a message.
const FUEL: u64 = 4_000_000;
const MAX_NESTING: usize = 64;
/// Roles that templates put between their own tokens. No other: a role is data, and `<|` + role + `|>` is a token.
const ROLES: [&str; 9] =
    ["system", "developer", "user", "assistant", "tool", "function", "ipython", "model", "observation"];

/// A model's chat template, compiled.
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: TemplateTokens,
    control: AddedTokens,
}

/// What a template may print of the tokenizer's, and what content must not spell.
#[derive(Debug, Clone, Default)]
pub struct TemplateTokens {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub unk: Option<String>,
    pub pad: Option<String>,
    /// Texts of all control tokens.
    pub control: Vec<String>,
}

impl TemplateTokens {
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let special = tokenizer.special();
        let text = |id: Option<u32>| id.map(|id| tokenizer.text(id));
        Self {
            bos: text(special.bos),
            eos: text(special.eos),
            unk: text(special.unk),
            pad: text(special.pad),
            control: tokenizer.control_texts().map(str::to_owned).collect(),
        }
    }
}

/// A conversation as templates see it, in the shapes of the OpenAI dialect, except that a tool call's `arguments` are
/// an object rather than its JSON text.
#[derive(Debug, Clone, Copy)]
pub struct ChatInput<'a> {
    pub messages: &'a [Json],
    pub tools: Option<&'a [Json]>,
    /// End with the header of the answer that is to be generated.
    pub add_generation_prompt: bool,
    /// Further variables; they win over nothing of the above.
    pub variables: Option<&'a Map<String, Json>>,
    /// What `strftime_now` shows, in UTC.
    pub now: SystemTime,
}

/// A prompt, with its control tokens told apart from content that only looks like them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    marked: String,
    mark: Option<char>,
}

impl Rendered {
    /// The prompt's text, exactly as the template would give it.
    pub fn text(&self) -> Cow<'_, str> {
        match self.mark {
            Some(mark) => Cow::Owned(self.marked.replace(mark, "")),
            None => Cow::Borrowed(&self.marked),
        }
    }

    /// Cuts the prompt before byte `at` of its text; `None` unless a character begins there, or the text ends.
    ///
    /// The parts encode to what they would be as separate texts: no token spans the cut.
    pub fn split_at(&self, at: usize) -> Option<(Self, Self)> {
        let mut text_bytes = 0;
        let place = self.marked.char_indices().find_map(|(i, c)| {
            let here = text_bytes == at;
            text_bytes += if Some(c) == self.mark { 0 } else { c.len_utf8() };
            here.then_some(i)
        });
        let place = place.or_else(|| (text_bytes == at).then_some(self.marked.len()))?;
        let (before, after) = self.marked.split_at(place);
        let part = |text: &str| Self { marked: text.to_owned(), mark: self.mark };
        Some((part(before), part(after)))
    }

    pub(crate) fn marked(&self) -> &str {
        &self.marked
    }

    pub(crate) fn mark(&self) -> Option<char> {
        self.mark
    }
}

/// A conversation that this template does not render.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template itself refused (`raise_exception`); the text is its author's.
    #[error("the chat template refuses this conversation: {0}")]
    Refused(String),
    #[error("role `{0}` is unknown to chat templates")]
    Role(String),
    /// The content holds every noncharacter that could mark it.
    #[error("the conversation holds too many noncharacters")]
    Unmarkable,
    #[error("the rendered prompt exceeds {limit} bytes or the template's steps")]
    TooLarge { limit: usize },
    #[error("the chat template failed: {0}")]
    Failed(String),
}

impl TemplateError {
    pub fn fault(&self) -> Fault {
        Fault::Caller // another conversation may render; the template was compiled when the model was loaded
    }
}

impl ChatTemplate {
    /// The template of a checkpoint, `None` if it has none: GGUF metadata, or `chat_template.jinja`,
    /// `chat_template.json` or `tokenizer_config.json` in its folder.
    pub fn open(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Option<Self>, ModelError> {
        let Some(metadata) = checkpoint.metadata() else {
            return Self::from_folder(checkpoint.path(), tokenizer);
        };
        let source = |key: &str| metadata.str(key).map(str::to_owned);
        let sources = source("tokenizer.chat_template")
            .map(|default| Sources { default, tools: source("tokenizer.chat_template.tool_use") });
        Self::of(checkpoint.path(), sources, tokenizer)
    }

    /// [`Self::open`] for a folder that may hold no weights.
    pub fn from_folder(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>, ModelError> {
        Self::of(folder, Sources::of_folder(folder)?, tokenizer)
    }

    fn of(path: &Path, sources: Option<Sources>, tokenizer: &Tokenizer) -> Result<Option<Self>, ModelError> {
        let Some(sources) = sources else {
            return Ok(None);
        };
        Self::compile(sources, TemplateTokens::of(tokenizer))
            .map(Some)
            .map_err(|reason| ModelError::damaged(path, format!("chat template: {reason}")))
    }

    /// Compiles `source`.
    ///
    /// # Errors
    /// [`TemplateError::Failed`] with the place of a syntax error.
    pub fn new(source: &str, tokens: TemplateTokens) -> Result<Self, TemplateError> {
        Self::compile(Sources { default: source.to_owned(), tools: None }, tokens).map_err(TemplateError::Failed)
    }

    /// The template's text and, after it, that of its variant for tools: what it knows of tools and reasoning.
    pub fn source(&self) -> String {
        let names = ["default", "tools"];
        names.iter().filter_map(|name| Some(self.environment.get_template(name).ok()?.source().to_owned())).collect()
    }

    /// The text that is used without tools.
    pub fn default_source(&self) -> String {
        self.environment.get_template("default").map_or_else(|_| String::new(), |template| template.source().to_owned())
    }

    /// Renders a conversation.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<Rendered, TemplateError> {
        for message in input.messages {
            let role = message.get("role").and_then(Json::as_str).unwrap_or_default();
            if !ROLES.contains(&role) {
                return Err(TemplateError::Role(role.chars().take(64).collect()));
            }
        }
        let (context, mark) = self.context(input)?;
        let name = if input.tools.is_some_and(|tools| !tools.is_empty()) { "tools" } else { "default" };
        let template = self.environment.get_template(name).or_else(|_| self.environment.get_template("default"));
        let template = template.map_err(|e| TemplateError::Failed(e.to_string()))?;
        let mut output = Bounded(Vec::new());
        match template.render_captured_to(context, &mut output) {
            Ok(_) => {}
            Err(error) => return Err(explain(&error, output.0.len())),
        }
        let marked = String::from_utf8(output.0).map_err(|e| TemplateError::Failed(e.to_string()))?;
        let mark = mark.filter(|&mark| marked.contains(mark));
        Ok(Rendered { marked, mark })
    }

    fn compile(sources: Sources, tokens: TemplateTokens) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_NESTING);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        python::install(&mut environment);
        for (name, source) in std::iter::once(("default", sources.default)).chain(sources.tools.map(|s| ("tools", s))) {
            if source.len() > MAX_TEMPLATE_BYTES {
                return Err(format!("{} bytes exceed the limit of {MAX_TEMPLATE_BYTES}", source.len()));
            }
            environment.add_template_owned(name, plain_blocks(&source)).map_err(|e| format!("{e:#}"))?;
        }
        let control = AddedTokens::new(
            tokens.control.iter().map(|text| AddedToken { text: text.clone(), ..AddedToken::default() }),
        );
        Ok(Self { environment, tokens, control })
    }

    /// The template's variables, and the mark that was put into them.
    fn context(&self, input: &ChatInput<'_>) -> Result<(Value, Option<char>), TemplateError> {
        let mut marker = Marker::new(&self.control, input)?;
        let mut context = Map::new();
        for (name, value) in input.variables.into_iter().flatten() {
            context.insert(name.clone(), marker.marked(value));
        }
        context.insert("messages".into(), marker.list(input.messages));
        if let Some(tools) = input.tools {
            context.insert("tools".into(), marker.list(tools));
        } else {
            context.entry("tools").or_insert(Json::Null);
        }
        context.insert("add_generation_prompt".into(), input.add_generation_prompt.into());
        for (name, text) in [
            ("bos_token", &self.tokens.bos),
            ("eos_token", &self.tokens.eos),
            ("unk_token", &self.tokens.unk),
            ("pad_token", &self.tokens.pad),
        ] {
            if let Some(text) = text {
                context.insert(name.into(), text.as_str().into());
            }
        }
        let mut context: Vec<(String, Value)> =
            context.into_iter().map(|(name, value)| (name, Value::from_serialize(value))).collect();
        let now = input.now;
        let strftime = move |format: String| clock::format_utc(now, &format);
        context.push(("strftime_now".into(), Value::from_function(strftime)));
        Ok((context.into_iter().collect(), marker.used.then_some(marker.mark)))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").finish_non_exhaustive()
    }
}

/// A writer that refuses to grow past [`MAX_RENDERED_BYTES`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_RENDERED_BYTES {
            return Err(io::Error::other("output limit"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain(error: &minijinja::Error, written: usize) -> TemplateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(python::Raised(text)) = cause.downcast_ref() {
            return TemplateError::Refused(text.clone());
        }
        source = cause.source();
    }
    match error.kind() {
        minijinja::ErrorKind::OutOfFuel | minijinja::ErrorKind::WriteFailure => {
            TemplateError::TooLarge { limit: MAX_RENDERED_BYTES }
        }
        _ => TemplateError::Failed(format!("{error:#} (after {written} bytes)")),
    }
}

/// Template texts: one for everything, one for conversations with tools where there is such.
struct Sources {
    default: String,
    tools: Option<String>,
}

impl Sources {
    fn of_folder(folder: &Path) -> Result<Option<Self>, ModelError> {
        let file = folder.join("chat_template.jinja");
        if exists(&file) {
            let default = String::from_utf8(read_small(&file)?).map_err(|_| ModelError::damaged(&file, "not UTF-8"))?;
            return Ok(Some(Self { default, tools: None }));
        }
        for name in ["chat_template.json", "tokenizer_config.json"] {
            let file = folder.join(name);
            if !exists(&file) {
                continue;
            }
            let json: Json =
                serde_json::from_slice(&read_small(&file)?).map_err(|e| ModelError::damaged(&file, e.to_string()))?;
            match json.get("chat_template") {
                Some(Json::String(default)) => {
                    return Ok(Some(Self { default: default.clone(), tools: None }));
                }
                Some(Json::Array(named)) => {
                    let find = |name: &str| {
                        let entry = named.iter().find(|entry| entry["name"] == name)?;
                        entry["template"].as_str().map(str::to_owned)
                    };
                    let Some(default) = find("default") else {
                        return Err(ModelError::damaged(&file, "no chat template is called `default`"));
                    };
                    return Ok(Some(Self { default, tools: find("tool_use") }));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// `{% generation %}` only tells trainers which part is the answer.
fn plain_blocks(source: &str) -> String {
    let mut plain = source.to_owned();
    for (word, instead) in [("endgeneration", "endif"), ("generation", "if true")] {
        for open in ["{%", "{%-"] {
            for close in ["%}", "-%}"] {
                plain = plain.replace(&format!("{open} {word} {close}"), &format!("{open} {instead} {close}"));
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests;

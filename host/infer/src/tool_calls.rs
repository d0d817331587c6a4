//! Reads a chat reply: what is answer, what is reasoning, what calls a tool.
//!
//! Invariants: the pieces do not depend on how the text was cut; text that only looks like a call comes out as text, to
//! the last character; a call comes out whole, with its arguments as the model wrote them, put into JSON where they were
//! Python.

mod pythonic;
mod scan;

use crate::stop::held_back;
use scan::{Scan, Syntax};
use serde::Deserialize;
use serde_json::value::RawValue;
use stockade_model::conversation::{CALL, MISTRAL};

pub use stockade_model::conversation::CallFormat;

const CALL_END: &str = "</tool_call>";
const PYTHON_TAG: &str = "<|python_tag|>";
const PYTHON_START: &str = "<|python_start|>";
const PYTHON_END: &str = "<|python_end|>";
const MISTRAL_ARGUMENTS: &str = "[ARGS]";
const THINK: &str = "<think>";
const THINK_END: &str = "</think>";

/// Control tokens of the vocabularies that mark calls and reasoning: part of a chat's text, unlike all others.
pub const MARKERS: [&str; 9] =
    [CALL, CALL_END, PYTHON_TAG, PYTHON_START, PYTHON_END, MISTRAL, MISTRAL_ARGUMENTS, THINK, THINK_END];

/// What stands before a call anywhere in a reply; `None`: calls are the whole reply.
fn tag(format: CallFormat) -> Option<&'static str> {
    match format {
        CallFormat::Hermes => Some(CALL),
        CallFormat::Mistral => Some(MISTRAL),
        CallFormat::Llama => None,
    }
}

/// Whether a template marks reasoning with `<think>`.
pub fn marks_reasoning(template: &str) -> bool {
    template.contains(THINK) || template.contains(THINK_END)
}

/// What to look for in a reply.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReplyFormat {
    /// Calls are looked for in this form. `None`: all is text.
    pub calls: Option<CallFormat>,
    /// Names that may be called; other names stay text.
    pub tools: Vec<String>,
    /// `<think>` opens reasoning.
    pub reasoning: bool,
    /// The prompt has opened reasoning already.
    pub starts_in_reasoning: bool,
}

/// A part of the reply. `start` counts bytes of the reply's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text { text: String, start: usize },
    Reasoning { text: String },
    Call { name: String, arguments: String },
}

#[derive(Debug)]
pub struct ReplyParser {
    format: ReplyFormat,
    state: State,
    /// Text that is not decided yet.
    held: String,
    /// Bytes of the reply before `held`.
    consumed: usize,
    /// Answer text has come out, so reasoning cannot open any more.
    answered: bool,
    /// White space after a call or reasoning is dropped unless an answer follows.
    drops_space: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Text,
    Reasoning,
    /// `held` starts with the format's tag.
    Tagged(Scan),
    /// `held` is the whole reply.
    Whole(Scan),
}

/// Where a value begins.
enum Begin {
    /// At this byte, in this language.
    At(usize, Syntax),
    /// More text tells.
    Open,
    /// There is none.
    Nowhere,
}

impl ReplyParser {
    pub fn new(format: ReplyFormat) -> Self {
        let state = if format.starts_in_reasoning {
            State::Reasoning
        } else if format.calls == Some(CallFormat::Llama) {
            State::Whole(Scan::default())
        } else {
            State::Text
        };
        Self { format, state, held: String::new(), consumed: 0, answered: false, drops_space: false }
    }

    /// Appends text and the pieces it decides.
    pub fn push(&mut self, text: &str, out: &mut Vec<Piece>) {
        self.held.push_str(text);
        while self.advance(out) {}
    }

    /// The end of the reply: what is held is decided.
    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        loop {
            match self.state {
                State::Tagged(_) => match self.tagged_calls() {
                    Some(calls) => {
                        self.take(self.held.len());
                        out.extend(calls);
                        return;
                    }
                    None => self.not_a_call(out),
                },
                State::Whole(_) => match self.whole_calls() {
                    Some(calls) => {
                        self.take(self.held.len());
                        out.extend(calls);
                        return;
                    }
                    None => self.state = State::Text,
                },
                State::Reasoning => {
                    let text = self.take(self.held.len());
                    reason(text, out);
                    return;
                }
                State::Text => {
                    while self.advance(out) {}
                    if self.state == State::Text {
                        let all = self.held.len();
                        self.emit_text(all, out);
                        return;
                    }
                }
            }
        }
    }

    /// One decision; false when more text is needed.
    fn advance(&mut self, out: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Text => self.advance_text(out),
            State::Reasoning => self.advance_reasoning(out),
            State::Tagged(scan) => self.advance_tagged(scan, out),
            State::Whole(scan) => self.advance_whole(scan),
        }
    }

    fn advance_text(&mut self, out: &mut Vec<Piece>) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let think = self.format.reasoning && !self.answered;
        let tag = self.format.calls.and_then(tag);
        if think {
            let begin = self.held.trim_start();
            if begin.starts_with(THINK) {
                self.take(self.held.len() - begin.len() + THINK.len());
                self.state = State::Reasoning;
                return true;
            }
            if begin.is_empty() || THINK.starts_with(begin) {
                return false;
            }
        }
        if let Some(at) = tag.and_then(|tag| self.held.find(tag)) {
            self.emit_text(at, out);
            self.state = State::Tagged(Scan::default());
            return true;
        }
        let keep = held_back(&self.held, tag.into_iter());
        let ready = self.held.len() - keep;
        if self.drops_space && self.held[..ready].trim().is_empty() {
            return false;
        }
        self.emit_text(ready, out);
        false
    }

    fn advance_reasoning(&mut self, out: &mut Vec<Piece>) -> bool {
        if let Some(at) = self.held.find(THINK_END) {
            let text = self.take(at);
            reason(text, out);
            self.take(THINK_END.len());
            self.drops_space = true;
            self.answered = true;
            self.state =
                if self.format.calls == Some(CallFormat::Llama) { State::Whole(Scan::default()) } else { State::Text };
            return true;
        }
        let ready = self.held.len() - held_back(&self.held, [THINK_END].into_iter());
        let text = self.take(ready);
        reason(text, out);
        false
    }

    fn advance_tagged(&mut self, mut scan: Scan, out: &mut Vec<Piece>) -> bool {
        let from = match self.tagged_begin() {
            Begin::At(from, _) => from,
            Begin::Open => return false,
            Begin::Nowhere => {
                self.not_a_call(out);
                return true;
            }
        };
        let broken = scan.run(&self.held[from..]).is_err();
        self.state = State::Tagged(scan);
        if broken {
            self.not_a_call(out);
            return true;
        }
        let Some(end) = scan.end else { return false };
        let mut all = from + end;
        if self.format.calls == Some(CallFormat::Hermes) {
            let after = self.held[all..].trim_start();
            all = self.held.len() - after.len() + CALL_END.len();
            if !after.starts_with(CALL_END) {
                if CALL_END.starts_with(after) {
                    return false;
                }
                self.not_a_call(out);
                return true;
            }
        }
        let Some(calls) = self.tagged_value(from, end) else {
            self.not_a_call(out);
            return true;
        };
        self.take(all);
        out.extend(calls);
        self.state = State::Text;
        (self.answered, self.drops_space) = (true, true);
        true
    }

    /// Where the JSON of a call with a tag begins in `held`.
    fn tagged_begin(&self) -> Begin {
        if self.format.calls != Some(CallFormat::Mistral) {
            return Begin::At(CALL.len(), Syntax::Json);
        }
        let rest = &self.held[MISTRAL.len()..];
        let name = rest.trim_start();
        let after = name.trim_start_matches(is_of_name);
        let length = name.len() - after.len();
        if name.is_empty() {
            return Begin::Open;
        }
        if length == 0 {
            return Begin::At(MISTRAL.len(), Syntax::Json);
        }
        let name = &name[..length];
        if after.starts_with(MISTRAL_ARGUMENTS) && self.is_tool(name) {
            return Begin::At(self.held.len() - after.len() + MISTRAL_ARGUMENTS.len(), Syntax::Json);
        }
        let name_open = after.is_empty() && self.begins_tool(name);
        let tag_open = MISTRAL_ARGUMENTS.starts_with(after) && self.is_tool(name);
        if name_open || tag_open { Begin::Open } else { Begin::Nowhere }
    }

    /// The calls whose JSON is `end` bytes of `held` at `from`.
    fn tagged_value(&self, from: usize, end: usize) -> Option<Vec<Piece>> {
        let value = self.held.get(from..from + end)?;
        // Mistral's own name stands before the arguments.
        match self.held[..from].strip_suffix(MISTRAL_ARGUMENTS) {
            Some(before) => {
                let name = before.strip_prefix(MISTRAL)?.trim().to_owned();
                let arguments: &RawValue = serde_json::from_str(value).ok()?;
                self.accept(RawCall { name, arguments: Some(arguments), parameters: None }).map(|call| vec![call])
            }
            None => self.parse_calls(value),
        }
    }

    /// The calls that `held` ends with, with its tag and without more than white space behind; the closing tag may be
    /// missing.
    fn tagged_calls(&self) -> Option<Vec<Piece>> {
        let Begin::At(from, _) = self.tagged_begin() else { return None };
        let mut scan = Scan::default();
        scan.run(&self.held[from..]).ok()?;
        let end = scan.end?;
        self.held[from + end..].trim().is_empty().then(|| self.tagged_value(from, end))?
    }

    /// Holds everything while the reply can still be nothing but calls.
    fn advance_whole(&mut self, mut scan: Scan) -> bool {
        let text = self.held.trim_start();
        if self.format.reasoning && !self.answered && text.starts_with('<') {
            if text.starts_with(THINK) {
                self.state = State::Text;
                return true;
            }
            if THINK.starts_with(text) {
                return false;
            }
        }
        let (from, syntax) = match self.whole_begin() {
            Begin::At(from, syntax) => (from, syntax),
            Begin::Open => return false,
            Begin::Nowhere => {
                self.state = State::Text;
                return true;
            }
        };
        if scan == Scan::default() {
            scan = Scan::of(syntax);
        }
        if scan.run(&self.held[from..]).is_err() {
            self.state = State::Text;
            return true;
        }
        self.state = State::Whole(scan);
        let Some(end) = scan.end else { return false };
        // After a value only separators and further values may follow, after Python only its end.
        let rest = &self.held[from + end..];
        let goes_on = match syntax {
            Syntax::Json => {
                let rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
                rest.is_empty() || rest.starts_with('{')
            }
            Syntax::Python => {
                let rest = rest.trim();
                PYTHON_END.starts_with(rest)
            }
        };
        if !goes_on {
            self.state = State::Text;
        }
        !goes_on
    }

    /// Where the value of a reply that is nothing but calls begins.
    fn whole_begin(&self) -> Begin {
        let text = self.held.trim_start();
        let tag = [PYTHON_TAG, PYTHON_START].into_iter().find_map(|tag| text.strip_prefix(tag));
        let value = tag.unwrap_or(text).trim_start();
        let from = self.held.len() - value.len();
        if value.starts_with('{') {
            return Begin::At(from, Syntax::Json);
        }
        if value.is_empty() || tag.is_none() && [PYTHON_TAG, PYTHON_START].iter().any(|tag| tag.starts_with(text)) {
            return Begin::Open;
        }
        let Some(first) = value.strip_prefix('[').map(str::trim_start) else { return Begin::Nowhere };
        let after = first.trim_start_matches(is_of_name);
        let name = &first[..first.len() - after.len()];
        let after = after.trim_start();
        match name {
            "" if after.starts_with('{') => Begin::At(from, Syntax::Json),
            "" if after.is_empty() => Begin::Open,
            "" => Begin::Nowhere,
            _ if after.starts_with('(') && self.is_tool(name) => Begin::At(from, Syntax::Python),
            _ if after.is_empty() && self.begins_tool(name) => Begin::Open,
            _ => Begin::Nowhere,
        }
    }

    /// The calls that the whole of `held` consists of.
    fn whole_calls(&self) -> Option<Vec<Piece>> {
        let Begin::At(from, syntax) = self.whole_begin() else { return None };
        let mut text = &self.held[from..];
        if syntax == Syntax::Python {
            let text = text.trim_end();
            let calls = pythonic::calls(text.strip_suffix(PYTHON_END).unwrap_or(text))?.into_iter();
            let accept =
                |(name, arguments): (String, String)| self.is_tool(&name).then_some(Piece::Call { name, arguments });
            return calls.map(accept).collect();
        }
        let mut calls = Vec::new();
        loop {
            text = text.trim_start_matches(|c: char| c.is_whitespace() || (c == ';' && !calls.is_empty()));
            if text.is_empty() {
                return (!calls.is_empty()).then_some(calls);
            }
            let mut scan = Scan::default();
            scan.run(text).ok()?;
            let (value, rest) = text.split_at(scan.end?);
            calls.extend(self.parse_calls(value)?);
            text = rest;
        }
    }

    fn is_tool(&self, name: &str) -> bool {
        self.format.tools.iter().any(|tool| tool == name)
    }

    fn begins_tool(&self, name: &str) -> bool {
        self.format.tools.iter().any(|tool| tool.starts_with(name))
    }

    /// The calls that a JSON object or list of objects stands for; `None` when it stands for anything else.
    fn parse_calls(&self, json: &str) -> Option<Vec<Piece>> {
        let json = json.trim();
        let raw: Vec<RawCall<'_>> = if json.starts_with('[') {
            serde_json::from_str(json).ok()?
        } else {
            vec![serde_json::from_str(json).ok()?]
        };
        let calls: Option<Vec<Piece>> = raw.into_iter().map(|call| self.accept(call)).collect();
        calls.filter(|calls| !calls.is_empty())
    }

    fn accept(&self, call: RawCall<'_>) -> Option<Piece> {
        if !self.is_tool(&call.name) {
            return None;
        }
        let arguments = match call.arguments.or(call.parameters) {
            None => "{}".to_owned(),
            Some(raw) if raw.get().starts_with('{') => raw.get().to_owned(),
            // Some models write the arguments as a string that holds JSON.
            Some(raw) => {
                let inner: String = serde_json::from_str(raw.get()).ok()?;
                let value: serde_json::Value = serde_json::from_str(&inner).ok()?;
                value.is_object().then_some(inner)?
            }
        };
        Some(Piece::Call { name: call.name, arguments })
    }

    /// `held` starts with the format's tag and is no call: that tag is text, the rest is looked at again.
    fn not_a_call(&mut self, out: &mut Vec<Piece>) {
        self.state = State::Text;
        let tag = self.format.calls.and_then(tag).unwrap_or_default();
        self.emit_text(tag.len(), out);
    }

    fn take(&mut self, bytes: usize) -> String {
        self.consumed += bytes;
        self.held.drain(..bytes).collect()
    }

    fn emit_text(&mut self, bytes: usize, out: &mut Vec<Piece>) {
        let start = self.consumed;
        let mut text = self.take(bytes);
        let mut start = start;
        if self.drops_space {
            let kept = text.trim_start();
            if kept.is_empty() {
                return;
            }
            start += text.len() - kept.len();
            text = kept.to_owned();
            self.drops_space = false;
        }
        if !text.is_empty() {
            self.answered = true;
            out.push(Piece::Text { text, start });
        }
    }
}

/// Characters of a tool's name.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-.".contains(c)
}

fn reason(text: String, out: &mut Vec<Piece>) {
    if !text.is_empty() {
        out.push(Piece::Reasoning { text });
    }
}

#[derive(Deserialize)]
struct RawCall<'a> {
    name: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests;

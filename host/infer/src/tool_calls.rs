//! Reads a chat reply: what is answer, what is reasoning, what calls a tool.
//!
//! Invariants: the pieces do not depend on how the text was cut; text that only looks like a call comes out as text, to
//! the last character; a call comes out whole, with its arguments as the model wrote them.

use crate::stop::held_back;
use serde::Deserialize;
use serde_json::value::RawValue;

/// How a model family writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFormat {
    /// `<tool_call>{"name": .., "arguments": {..}}</tool_call>`, anywhere, any number; a list inside too (Hermes,
    /// Qwen, SmolLM2).
    Hermes,
    /// `{"name": .., "parameters": {..}}` as the whole reply, `<|python_tag|>` before it or not, `;` between several
    /// (Llama 3.x).
    Llama,
}

pub const PYTHON_TAG: &str = "<|python_tag|>";
const CALL: &str = "<tool_call>";
const CALL_END: &str = "</tool_call>";
const THINK: &str = "<think>";
const THINK_END: &str = "</think>";

impl CallFormat {
    /// Of the family that a chat template was written for; `None` when the template shows no tools.
    pub fn of_template(template: &str) -> Option<Self> {
        if !template.contains("tools") {
            None
        } else if template.contains(CALL) {
            Some(Self::Hermes)
        } else if template.contains("ipython") || template.contains("\"parameters\"") {
            Some(Self::Llama)
        } else {
            None
        }
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
    /// `held` starts with `<tool_call>`.
    Hermes(Scan),
    /// `held` is the whole reply.
    Llama(Scan),
}

impl ReplyParser {
    pub fn new(format: ReplyFormat) -> Self {
        let state = if format.starts_in_reasoning {
            State::Reasoning
        } else if format.calls == Some(CallFormat::Llama) {
            State::Llama(Scan::default())
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
                State::Hermes(scan) => match self.calls_in(CALL.len(), scan.end) {
                    Some(calls) if self.held[CALL.len() + scan.end.unwrap_or(0)..].trim().is_empty() => {
                        self.take(self.held.len());
                        out.extend(calls);
                        return;
                    }
                    _ => self.not_a_call(out),
                },
                State::Llama(_) => match self.llama_calls() {
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
            State::Hermes(scan) => self.advance_hermes(scan, out),
            State::Llama(scan) => self.advance_llama(scan),
        }
    }

    fn advance_text(&mut self, out: &mut Vec<Piece>) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let think = self.format.reasoning && !self.answered;
        let hermes = self.format.calls == Some(CallFormat::Hermes);
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
        if hermes && let Some(at) = self.held.find(CALL) {
            self.emit_text(at, out);
            self.state = State::Hermes(Scan::default());
            return true;
        }
        let keep = if hermes { held_back(&self.held, [CALL].into_iter()) } else { 0 };
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
                if self.format.calls == Some(CallFormat::Llama) { State::Llama(Scan::default()) } else { State::Text };
            return true;
        }
        let ready = self.held.len() - held_back(&self.held, [THINK_END].into_iter());
        let text = self.take(ready);
        reason(text, out);
        false
    }

    fn advance_hermes(&mut self, mut scan: Scan, out: &mut Vec<Piece>) -> bool {
        let broken = scan.run(&self.held[CALL.len()..]).is_err();
        self.state = State::Hermes(scan);
        if broken {
            self.not_a_call(out);
            return true;
        }
        let Some(end) = scan.end else { return false };
        let rest = &self.held[CALL.len() + end..];
        let after = rest.trim_start();
        if after.starts_with(CALL_END) {
            let Some(calls) = self.calls_in(CALL.len(), Some(end)) else {
                self.not_a_call(out);
                return true;
            };
            self.take(self.held.len() - after.len() + CALL_END.len());
            out.extend(calls);
            self.state = State::Text;
            (self.answered, self.drops_space) = (true, true);
            return true;
        }
        if CALL_END.starts_with(after) {
            return false;
        }
        self.not_a_call(out);
        true
    }

    /// Holds everything while the reply can still be nothing but calls.
    fn advance_llama(&mut self, mut scan: Scan) -> bool {
        let text = self.held.trim_start();
        let lead = self.held.len() - text.len();
        if self.format.reasoning && !self.answered && !text.is_empty() && text.starts_with('<') {
            if text.starts_with(THINK) {
                self.state = State::Text;
                return true;
            }
            if THINK.starts_with(text) {
                return false;
            }
        }
        let lead = if let Some(rest) = text.strip_prefix(PYTHON_TAG) {
            self.held.len() - rest.len()
        } else if PYTHON_TAG.starts_with(text) {
            return false;
        } else {
            lead
        };
        if scan.run(&self.held[lead..]).is_err() {
            self.state = State::Text;
            return true;
        }
        self.state = State::Llama(scan);
        let Some(end) = scan.end else { return false };
        // After a value only separators and further values may follow.
        let rest = self.held[lead + end..].trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        if !rest.is_empty() && !rest.starts_with('{') {
            self.state = State::Text;
            return true;
        }
        false
    }

    /// The calls that the whole of `held` consists of, in Llama's form.
    fn llama_calls(&self) -> Option<Vec<Piece>> {
        let text = self.held.trim_start();
        let mut text = text.strip_prefix(PYTHON_TAG).unwrap_or(text);
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

    fn calls_in(&self, from: usize, end: Option<usize>) -> Option<Vec<Piece>> {
        self.parse_calls(self.held.get(from..from + end?)?)
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
        if !self.format.tools.contains(&call.name) {
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

    /// `held` starts with `<tool_call>` and is no call: that tag is text, the rest is looked at again.
    fn not_a_call(&mut self, out: &mut Vec<Piece>) {
        self.state = State::Text;
        self.emit_text(CALL.len(), out);
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

/// Finds the end of a JSON object or list by its brackets, as text comes.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Scan {
    at: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Bytes up to and including the closing bracket.
    end: Option<usize>,
}

impl Scan {
    /// Goes on to the end of `text`, which must start with what earlier calls saw.
    fn run(&mut self, text: &str) -> Result<(), ()> {
        while self.end.is_none() && self.at < text.len() {
            let byte = text.as_bytes()[self.at];
            self.at += 1;
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'{' | b'[' => self.depth += 1,
                _ if self.depth == 0 && !byte.is_ascii_whitespace() => return Err(()),
                b'"' => self.in_string = true,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.end = Some(self.at);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn format(calls: CallFormat, reasoning: bool) -> ReplyFormat {
        ReplyFormat { calls: Some(calls), tools: vec!["f".into(), "g".into()], reasoning, starts_in_reasoning: false }
    }

    /// Pieces with neighbours of one kind joined.
    fn read<'a>(format: &ReplyFormat, pieces: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut parser = ReplyParser::new(format.clone());
        let mut out = Vec::new();
        pieces.into_iter().for_each(|piece| parser.push(piece, &mut out));
        parser.finish(&mut out);
        let mut joined: Vec<String> = Vec::new();
        for piece in out {
            let (kind, text) = match piece {
                Piece::Text { text, .. } => ("text:", text),
                Piece::Reasoning { text } => ("think:", text),
                Piece::Call { name, arguments } => ("call:", format!("{name} {arguments}")),
            };
            match joined.last_mut() {
                Some(last) if kind != "call:" && last.starts_with(kind) => last.push_str(&text),
                _ => joined.push(format!("{kind}{text}")),
            }
        }
        joined
    }

    fn cases() -> Vec<(ReplyFormat, &'static str, Vec<&'static str>)> {
        use CallFormat::{Hermes, Llama};
        let h = format(Hermes, false);
        let l = format(Llama, false);
        let t = format(Hermes, true);
        let lt = format(Llama, true);
        let open = ReplyFormat { starts_in_reasoning: true, ..t.clone() };
        vec![
            (h.clone(), "plain", vec!["text:plain"]),
            (
                h.clone(),
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\"}}\n</tool_call>",
                vec!["call:f {\"a\": \"}</tool_call>\"}"],
            ),
            (
                h.clone(),
                "Let me see.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{\"x\":1.50}}</tool_call>\n",
                vec!["text:Let me see.\n", "call:f {}", "call:g {\"x\":1.50}"],
            ),
            (
                h.clone(),
                "<tool_call>[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\"}]</tool_call>",
                vec!["call:f {}", "call:g {}"],
            ),
            (h.clone(), "<tool_call>{\"name\":\"f\",\"arguments\":{}}", vec!["call:f {}"]),
            (
                h.clone(),
                "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>",
                vec!["call:f {\"a\":1}"],
            ),
            (
                h.clone(),
                "<tool_call>{\"name\":\"unknown\",\"arguments\":{}}</tool_call>",
                vec!["text:<tool_call>{\"name\":\"unknown\",\"arguments\":{}}</tool_call>"],
            ),
            (
                h.clone(),
                "<tool_call>{\"name\":\"f\",\"arguments\":{}} is a call",
                vec!["text:<tool_call>{\"name\":\"f\",\"arguments\":{}} is a call"],
            ),
            (
                h.clone(),
                "<tool_call> is a tag. <tool_call>{\"name\":\"f\"}</tool_call> end",
                vec!["text:<tool_call> is a tag. ", "call:f {}", "text:end"],
            ),
            (h.clone(), "<tool_call>{\"name\":\"f\",\"argum", vec!["text:<tool_call>{\"name\":\"f\",\"argum"]),
            (h.clone(), "a <tool", vec!["text:a <tool"]),
            (h.clone(), "{\"name\":\"f\",\"parameters\":{}}", vec!["text:{\"name\":\"f\",\"parameters\":{}}"]),
            (l.clone(), "{\"name\": \"f\", \"parameters\": {\"q\": \"a; {b\"}}", vec!["call:f {\"q\": \"a; {b\"}"]),
            (
                l.clone(),
                "<|python_tag|>{\"name\":\"f\",\"parameters\":{}}; {\"name\":\"g\",\"parameters\":{}}",
                vec!["call:f {}", "call:g {}"],
            ),
            (
                l.clone(),
                "{\"name\":\"f\",\"parameters\":{}} and more",
                vec!["text:{\"name\":\"f\",\"parameters\":{}} and more"],
            ),
            (l.clone(), "{\"temperature\": 20}", vec!["text:{\"temperature\": 20}"]),
            (
                l.clone(),
                "Here: {\"name\":\"f\",\"parameters\":{}}",
                vec!["text:Here: {\"name\":\"f\",\"parameters\":{}}"],
            ),
            (t.clone(), "<think>\nhm < 3</think>\n\nAnswer <think>", vec!["think:\nhm < 3", "text:Answer <think>"]),
            (t.clone(), "<think>hm</think>\n<tool_call>{\"name\":\"f\"}</tool_call>", vec!["think:hm", "call:f {}"]),
            (t, "<thin air", vec!["text:<thin air"]),
            (open, "hm</think>yes", vec!["think:hm", "text:yes"]),
            (lt.clone(), "<think>hm</think>{\"name\":\"f\",\"parameters\":{}}", vec!["think:hm", "call:f {}"]),
            (lt, "<think>hm</think> Hello", vec!["think:hm", "text:Hello"]),
            (
                ReplyFormat::default(),
                "<think>a</think><tool_call>{\"name\":\"f\"}</tool_call>",
                vec!["text:<think>a</think><tool_call>{\"name\":\"f\"}</tool_call>"],
            ),
        ]
    }

    #[test]
    fn calls_reasoning_and_lookalikes_are_told_apart() {
        for (format, text, want) in cases() {
            assert_eq!(read(&format, [text]), want, "{text}");
        }
    }

    #[test]
    fn every_cut_into_two_and_into_characters_reads_alike() {
        for (format, text, want) in cases() {
            for (at, _) in text.char_indices() {
                assert_eq!(read(&format, [&text[..at], &text[at..]]), want, "{text} at {at}");
            }
            assert_eq!(read(&format, text.split_inclusive(|_| true)), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_lost_or_panics(parts in proptest::collection::vec(prop_oneof![Just("<tool_call>"), Just("</tool_call>"), Just("{\"name\":\"x\"}"), Just("<think>"), Just("}"), Just("\""), Just("é"), Just(" ")], 0..12)) {
            let all: String = parts.concat();
            // No tool is known and reasoning is off: all of it is text.
            let format = ReplyFormat { calls: Some(CallFormat::Hermes), ..ReplyFormat::default() };
            let want: Vec<String> = if all.is_empty() { vec![] } else { vec![format!("text:{all}")] };
            prop_assert_eq!(read(&format, parts.iter().copied()), want);
        }
    }
}

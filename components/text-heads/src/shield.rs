//! A shield from heads: conversations window by window, replies segment by segment.
//!
//! The whole conversation takes one call of the embedder (one for each 256 windows). A reply takes one for each piece that
//! completes a segment, and holds back at most [`HOLD_BACK`] bytes: a segment leaves once it is judged with the one before.

use crate::heads::{Heads, Scores};
use crate::window::{self, HOLD_BACK};
use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;
use stockade_guest::prelude::*;

/// Most windows of a conversation: about 250 KiB of text.
const MAX_WINDOWS: usize = 2048;
/// Most texts that the host embeds in one call.
const BATCH: usize = 256;

/// Who wrote a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Role(Role),
    /// What a tool answered: words of strangers, in which nobody has to give orders.
    ToolResult,
}

/// A window with what the heads make of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// Which message it is in; 0 in a stream.
    pub message: usize,
    /// Bytes of its text: of one part of the message, or of the stream's channel. A tool call's is its name, a line feed and
    /// its arguments, here as there.
    pub span: Range<u64>,
    pub source: Source,
    pub scores: Scores,
}

/// What a component makes of the scores.
pub trait Judge: 'static {
    fn heads(&self) -> &Heads;
    /// The embedder's name.
    fn model(&self) -> &str;
    /// Whether texts of this source are judged at all.
    fn judges(&self, source: Source) -> bool;
    /// Whether something in these windows stands against the text.
    fn rule(&self, hits: &[Hit]) -> Option<Violation>;
}

pub const fn hold_back() -> u32 {
    HOLD_BACK
}

/// Judges whole messages.
///
/// # Errors
/// [`Error::TooLarge`] beyond 2048 windows, and what the embedder answers.
pub fn check<J: Judge>(judge: &J, messages: &[Message]) -> Result<Verdict> {
    let (mut texts, mut hits) = (Vec::new(), Vec::new());
    for (message, source, text) in messages.iter().enumerate().flat_map(|(i, m)| judged_texts(i, m)) {
        if !judge.judges(source) {
            continue;
        }
        for Range { start, end } in window::windows(&text) {
            texts.push(text[start..end].to_string());
            hits.push(Hit { message, span: start as u64..end as u64, source, scores: Scores::new() });
        }
        if hits.len() > MAX_WINDOWS {
            return Err(Error::TooLarge(format!("{MAX_WINDOWS} windows of text")));
        }
    }
    score(judge, &texts, &mut hits)?;
    Ok(judge.rule(&hits).map_or(Verdict::Pass, Verdict::Block))
}

/// The texts of a message with who wrote them. Names and arguments of tool calls are the assistant's.
fn judged_texts(index: usize, message: &Message) -> impl Iterator<Item = (usize, Source, Cow<'_, str>)> {
    let own = Source::Role(message.role);
    message.parts.iter().filter_map(move |part| match part {
        Part::Text(text) if message.role == Role::Tool => Some((index, Source::ToolResult, text.into())),
        Part::Text(text) | Part::Reasoning(text) => Some((index, own, text.into())),
        Part::ToolCall(call) => Some((index, own, format!("{}\n{}", call.name, call.arguments).into())),
        Part::ToolResult(result) => Some((index, Source::ToolResult, Cow::from(&result.content))),
        Part::Image(_) => None,
    })
}

fn score<J: Judge>(judge: &J, texts: &[String], hits: &mut [Hit]) -> Result<()> {
    for (texts, hits) in texts.chunks(BATCH).zip(hits.chunks_mut(BATCH)) {
        let vectors = inference::embed(judge.model(), texts)?;
        if vectors.len() != texts.len() {
            return Err(Error::Other(format!("{} vectors for {} texts", vectors.len(), texts.len())));
        }
        for ((hit, text), vector) in hits.iter_mut().zip(texts).zip(&vectors) {
            hit.scores = judge.heads().scores(text, vector)?;
        }
    }
    Ok(())
}

/// Begins to judge a channel of a reply.
pub fn session<J: Judge>(judge: Rc<J>) -> Box<dyn Session> {
    Box::new(Stream { judge, text: String::new(), base: 0, start: 0 })
}

struct Stream<J> {
    judge: Rc<J>,
    /// The segment that was judged last and all that is not judged.
    text: String,
    /// The channel's offset of `text`.
    base: u64,
    /// Where in `text` what is not judged begins.
    start: usize,
}

impl<J: Judge> Session for Stream<J> {
    fn feed(&mut self, text: &str) -> Result<Ruling> {
        self.text.push_str(text);
        self.rule(false)
    }
    fn finish(&mut self) -> Result<Ruling> {
        self.rule(true)
    }
}

impl<J: Judge> Stream<J> {
    fn rule(&mut self, complete: bool) -> Result<Ruling> {
        let source = Source::Role(Role::Assistant);
        let (mut texts, mut hits, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut before, mut start) = (0, self.start);
        while let Some(end) = window::segment_end(&self.text, start, complete).filter(|_| start < self.text.len()) {
            if self.judge.judges(source) && !window::is_blank(&self.text[start..end]) {
                texts.push(self.text[before..end].to_string());
                starts.push(self.base + start as u64);
                let span = self.base + before as u64..self.base + end as u64;
                hits.push(Hit { message: 0, span, source, scores: Scores::new() });
            }
            (before, start) = (start, end);
        }
        score(&*self.judge, &texts, &mut hits)?;
        // Segment by segment, so that the outcome does not depend on how many one piece has completed.
        for (hit, &segment) in hits.iter().zip(&starts) {
            if let Some(violation) = self.judge.rule(std::slice::from_ref(hit)) {
                return Ok(Ruling { cleared: segment, edits: Vec::new(), violation: Some(violation) });
            }
        }
        if start > self.start {
            self.text.drain(..before);
            self.base += before as u64;
            start -= before;
        }
        self.start = start;
        Ok(Ruling { cleared: self.base + start as u64, edits: Vec::new(), violation: None })
    }
}

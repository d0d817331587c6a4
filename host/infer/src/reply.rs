//! One reply on its way from tokens to events: bytes to text, stop strings, calls and reasoning, log-probabilities.
//!
//! Invariant: a token's log-probability goes out with the text that begins with it, never before, and not at all when
//! that text is cut off by a stop string or belongs to a call or to reasoning.

use crate::detokenizer::Detokenizer;
use crate::stop::StopMatcher;
use crate::tool_calls::{Piece, ReplyFormat, ReplyParser};
use std::collections::VecDeque;
use stockade_core::event::{Event, TextDelta, TokenLogprob, ToolCallDelta};

#[derive(Debug)]
pub struct Reply {
    detokenizer: Detokenizer,
    stop: StopMatcher,
    /// Absent for plain completions.
    parser: Option<ReplyParser>,
    /// Bytes of text that the detokenizer has given.
    decoded: usize,
    /// Bytes of text that the stop matcher has given.
    released: usize,
    /// With the place of the text where each begins.
    logprobs: VecDeque<(usize, TokenLogprob)>,
    calls: u32,
    /// Makes call ids unique.
    nonce: u64,
    last_was_text: bool,
}

impl Reply {
    pub fn new(stops: &[String], format: Option<ReplyFormat>, nonce: u64) -> Self {
        Self {
            detokenizer: Detokenizer::default(),
            stop: StopMatcher::new(stops),
            parser: format.map(ReplyParser::new),
            decoded: 0,
            released: 0,
            logprobs: VecDeque::new(),
            calls: 0,
            nonce,
            last_was_text: true,
        }
    }

    /// Appends a token's bytes. True when a stop string is complete: [`Reply::finish`] is next.
    pub fn push(&mut self, bytes: &[u8], logprob: Option<TokenLogprob>, events: &mut Vec<Event>) -> bool {
        if let Some(logprob) = logprob {
            self.logprobs.push_back((self.decoded + self.detokenizer.held(), logprob));
        }
        let mut text = String::new();
        self.detokenizer.push(bytes, &mut text);
        self.decoded += text.len();
        let mut ready = String::new();
        let stopped = self.stop.push(&text, &mut ready);
        self.release(&ready, events);
        if stopped {
            // What the stop string cut off is gone, its log-probabilities too.
            let end = self.released;
            self.logprobs.retain(|(at, _)| *at < end);
            self.detokenizer = Detokenizer::default();
        }
        stopped
    }

    /// The end of the reply. True when it calls tools.
    pub fn finish(&mut self, events: &mut Vec<Event>) -> bool {
        let mut text = String::new();
        self.detokenizer.finish(&mut text);
        let mut ready = String::new();
        let stopped = self.stop.push(&text, &mut ready);
        if !stopped {
            self.stop.finish(&mut ready);
        }
        self.release(&ready, events);
        if let Some(mut parser) = self.parser.take() {
            let mut pieces = Vec::new();
            parser.finish(&mut pieces);
            self.emit(pieces, events);
        }
        if self.last_was_text && !self.logprobs.is_empty() {
            let logprobs = self.logprobs.drain(..).map(|(_, logprob)| logprob).collect();
            events.push(Event::Text(TextDelta { text: String::new(), logprobs }));
        }
        self.calls > 0
    }

    fn release(&mut self, text: &str, events: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        let start = self.released;
        self.released += text.len();
        let mut pieces = Vec::new();
        match &mut self.parser {
            Some(parser) => parser.push(text, &mut pieces),
            None => pieces.push(Piece::Text { text: text.to_owned(), start }),
        }
        self.emit(pieces, events);
    }

    fn emit(&mut self, pieces: Vec<Piece>, events: &mut Vec<Event>) {
        for piece in pieces {
            let was_text = self.last_was_text;
            self.last_was_text = matches!(piece, Piece::Text { .. });
            match piece {
                Piece::Text { text, start } => {
                    let end = start + text.len();
                    let mut logprobs = Vec::new();
                    while self.logprobs.front().is_some_and(|(at, _)| *at < end) {
                        let (at, logprob) = self.logprobs.pop_front().expect("just seen");
                        if was_text || at >= start {
                            logprobs.push(logprob);
                        }
                    }
                    events.push(Event::Text(TextDelta { text, logprobs }));
                }
                Piece::Reasoning { text } => events.push(Event::Reasoning { text }),
                Piece::Call { name, arguments } => {
                    let id = format!("call_{:016x}{:02x}", self.nonce, self.calls);
                    events.push(Event::ToolCall(ToolCallDelta {
                        index: self.calls,
                        id: Some(id),
                        name: Some(name),
                        arguments,
                    }));
                    self.calls += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool_calls::CallFormat;
    use proptest::prelude::*;

    fn entry(id: u32) -> TokenLogprob {
        TokenLogprob { id, bytes: vec![], logprob: -1.0, top: vec![] }
    }

    fn run(stops: &[&str], format: Option<ReplyFormat>, tokens: &[&[u8]]) -> (Vec<Event>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut reply = Reply::new(&stops, format, 1);
        let mut events = Vec::new();
        for (id, bytes) in tokens.iter().enumerate() {
            if reply.push(bytes, Some(entry(id as u32)), &mut events) {
                break;
            }
        }
        let calls = reply.finish(&mut events);
        (events, calls)
    }

    fn text(events: &[Event]) -> String {
        events
            .iter()
            .filter_map(|e| match e {
                Event::Text(t) => Some(t.text.as_str()),
                _ => None,
            })
            .collect()
    }

    fn ids(events: &[Event]) -> Vec<u32> {
        let texts = events.iter().filter_map(|e| match e {
            Event::Text(t) => Some(t),
            _ => None,
        });
        texts.flat_map(|t| t.logprobs.iter().map(|l| l.id)).collect()
    }

    #[test]
    fn log_probabilities_wait_for_their_text() {
        let (events, _) = run(&["STOP"], None, &[b"ab", b"S", b"T", b"x", b" S", b"TOP", b"never"]);
        assert_eq!(text(&events), "abSTx ");
        assert_eq!(ids(&events), [0, 1, 2, 3, 4]);
        let Event::Text(first) = &events[0] else { panic!("text first") };
        assert_eq!(first.logprobs.len(), 1);
        let Event::Text(second) = &events[1] else { panic!("text second") };
        assert_eq!((second.text.as_str(), second.logprobs.len()), ("STx", 3));
    }

    #[test]
    fn a_split_character_goes_out_whole_with_both_log_probabilities() {
        let (events, _) = run(&[], None, &["é".as_bytes().split_at(1).0, "é".as_bytes().split_at(1).1, b"!"]);
        assert_eq!(text(&events), "é!");
        assert_eq!(ids(&events), [0, 1, 2]);
    }

    #[test]
    fn log_probabilities_of_a_call_do_not_reach_the_text() {
        let format = ReplyFormat { calls: Some(CallFormat::Hermes), tools: vec!["f".into()], ..ReplyFormat::default() };
        let (events, calls) =
            run(&[], Some(format), &[b"hi", b"<tool_call>", b"{\"name\":\"f\"}", b"</tool_call>", b"bye"]);
        assert!(calls);
        assert_eq!(text(&events), "hibye");
        assert_eq!(ids(&events), [0, 4]);
    }

    proptest! {
        #[test]
        fn stops_characters_and_log_probabilities_agree_over_all_splits(text_in in "[ab€]{0,16}", stop in "[ab€]{1,3}", cuts in proptest::collection::vec(1usize..4, 48)) {
            let bytes = text_in.as_bytes();
            let (mut tokens, mut starts, mut at): (Vec<&[u8]>, Vec<usize>, usize) = (vec![], vec![], 0);
            for cut in cuts {
                if at >= bytes.len() { break; }
                let end = (at + cut).min(bytes.len());
                tokens.push(&bytes[at..end]);
                starts.push(at);
                at = end;
            }
            let want = text_in.find(&stop).map_or(text_in.as_str(), |i| &text_in[..i]);
            let (events, _) = run(&[&stop], None, &tokens);
            prop_assert_eq!(text(&events), want);
            let kept: Vec<u32> = (0u32..).zip(&starts).filter(|(_, s)| **s < want.len()).map(|(i, _)| i).collect();
            prop_assert_eq!(ids(&events), kept);
        }
    }
}

//! Tool calls on their way through the output shields: a channel a call, holding its name, a line feed, its arguments.
//!
//! Invariant: arguments are judged, and leave, without escapes of characters that JSON can write as they are.

use super::gate::Piece;
use std::collections::BTreeMap;
use stockade_core::event::ToolCallDelta;
use stockade_core::json_text::Unescaper;

/// The calls of one reply.
#[derive(Debug, Default)]
pub struct ToolCalls {
    calls: BTreeMap<u32, Call>,
}

#[derive(Debug)]
struct Call {
    id: Option<String>,
    arguments: Unescaper,
    /// Bytes of the name as the model wrote it.
    name_bytes: u64,
    /// The name as far as it has been cleared.
    name: String,
    announced: bool,
}

impl ToolCalls {
    pub fn indices(&self) -> Vec<u32> {
        self.calls.keys().copied().collect()
    }

    /// The text that the shields are to see of a delta.
    pub fn text(&mut self, delta: &ToolCallDelta) -> String {
        if let Some(call) = self.calls.get_mut(&delta.index) {
            return call.arguments.push(&delta.arguments);
        }
        let name = delta.name.clone().unwrap_or_default();
        let mut arguments = Unescaper::default();
        let text = format!("{name}\n{}", arguments.push(&delta.arguments));
        let (id, name_bytes) = (delta.id.clone(), name.len() as u64);
        self.calls.insert(delta.index, Call { id, arguments, name_bytes, name: String::new(), announced: false });
        text
    }

    /// What is left for the shields to see when a call is complete: the beginning of an escape that never became whole.
    pub fn rest(&mut self, index: u32) -> String {
        self.calls.get_mut(&index).map(|call| call.arguments.finish()).unwrap_or_default()
    }

    /// Cleared pieces as a delta. Id and name leave together, once the whole name is cleared.
    pub fn delta(&mut self, index: u32, pieces: Vec<Piece>) -> Option<ToolCallDelta> {
        let call = self.calls.get_mut(&index)?;
        let mut arguments = String::new();
        let mut cleared = 0;
        for piece in pieces {
            cleared = piece.end;
            let in_name = call.name_bytes.saturating_sub(piece.start) as usize;
            if piece.edited {
                if in_name > 0 {
                    call.name.push_str(&piece.text);
                } else {
                    arguments.push_str(&piece.text);
                }
                continue;
            }
            let (name, rest) = piece.text.split_at(in_name.min(piece.text.len()));
            call.name.push_str(name);
            // The line feed is ours.
            let ours = piece.start <= call.name_bytes && call.name_bytes < piece.end;
            arguments.push_str(if ours { &rest[1..] } else { rest });
        }
        let announce = !call.announced && cleared > call.name_bytes;
        if !announce && arguments.is_empty() {
            return None;
        }
        call.announced |= announce;
        Some(ToolCallDelta {
            index,
            id: call.id.take_if(|_| announce),
            name: announce.then(|| std::mem::take(&mut call.name)),
            arguments,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, text: &str) -> Piece {
        Piece { start, end: start + text.len() as u64, text: text.into(), edited: false }
    }

    #[test]
    fn name_and_arguments_come_apart_at_every_cut() {
        let first =
            ToolCallDelta { index: 0, id: Some("c".into()), name: Some("search".into()), arguments: "{\"q\":".into() };
        let whole = "search\n{\"q\":1}";
        for a in 0..=whole.len() {
            for b in a..=whole.len() {
                let mut calls = ToolCalls::default();
                let more = ToolCallDelta { index: 0, arguments: "1}".into(), ..ToolCallDelta::default() };
                assert_eq!(calls.text(&first) + &calls.text(&more) + &calls.rest(0), whole);
                let (mut name, mut arguments) = (String::new(), String::new());
                for (start, text) in [(0, &whole[..a]), (a, &whole[a..b]), (b, &whole[b..])] {
                    if text.is_empty() {
                        continue;
                    }
                    let pieces = vec![piece(start as u64, text)];
                    if let Some(delta) = calls.delta(0, pieces) {
                        if let Some(n) = delta.name {
                            assert_eq!(delta.id.as_deref(), Some("c"));
                            assert!(arguments.is_empty());
                            name.push_str(&n);
                        }
                        arguments.push_str(&delta.arguments);
                    }
                }
                assert_eq!((name.as_str(), arguments.as_str()), ("search", "{\"q\":1}"));
            }
        }
    }
}

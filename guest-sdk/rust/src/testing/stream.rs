//! Drives a streaming shield as the host does, and holds it to its contract on the way.

use crate::shield::{Channel, Edit, Ruling, Shield};
use crate::types::{Message, Violation};
use crate::{Result, testing};
use serde_json::Value;
use std::rc::Rc;

/// What a reply became.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reply {
    /// What left, edits applied.
    pub sent: String,
    pub violation: Option<Violation>,
}

/// Longest text, in characters, of which [`every_split`] tries all pairs of cuts.
const PAIRS_UP_TO: usize = 80;

const CHANNELS: [Channel; 4] = [Channel::Text, Channel::Reasoning, Channel::ToolCall, Channel::Step];

/// Feeds the pieces in order and finishes.
///
/// # Panics
/// When the shield breaks its contract: `cleared` shrinks, passes what was fed or cuts a character, an edit lies
/// outside of what this ruling clears, or more is held back than [`Shield::hold_back`] allows.
pub fn stream<T: Shield>(config: Value, pieces: &[&str]) -> Result<Reply> {
    stream_after::<T>(config, &[], pieces)
}

/// As [`stream`], a reply to a conversation.
pub fn stream_after<T: Shield>(config: Value, conversation: &[Message], pieces: &[&str]) -> Result<Reply> {
    feed(testing::plugin::<T>(config)?, Channel::Text, conversation, pieces)
}

fn feed<T: Shield>(shield: Rc<T>, channel: Channel, conversation: &[Message], pieces: &[&str]) -> Result<Reply> {
    let hold_back = u64::from(shield.hold_back());
    let mut session = shield.session(channel, conversation.to_vec())?;
    let mut host = Channelled::default();
    for piece in pieces {
        host.fed.push_str(piece);
        let ruling = session.feed(piece)?;
        host.apply(ruling);
        if host.reply.violation.is_some() {
            return Ok(host.reply);
        }
        let held = host.fed.len() as u64 - host.cleared;
        assert!(held <= hold_back, "holds back {held} bytes, hold_back() is {hold_back}");
    }
    host.apply(session.finish()?);
    let whole = host.fed.len() as u64 == host.cleared;
    assert!(whole || host.reply.violation.is_some(), "finish cleared {} of {} bytes", host.cleared, host.fed.len());
    Ok(host.reply)
}

/// Streams `text` over each channel in one piece, at every single cut, at every pair of cuts (of short texts) and
/// character by character; all of a channel have to give the same reply. That of [`Channel::Text`] is returned.
///
/// # Panics
/// When two splits differ, the shield answers with an error, or it breaks its contract as [`stream`] says.
pub fn every_split<T: Shield>(config: Value, text: &str) -> Reply {
    let [answer, ..] = CHANNELS.map(|channel| every_split_of::<T>(config.clone(), channel, text));
    answer
}

/// As [`every_split`], of one channel.
pub fn every_split_of<T: Shield>(config: Value, channel: Channel, text: &str) -> Reply {
    let shield = testing::plugin::<T>(config).expect("the configuration fits");
    let run = |pieces: &[&str]| match feed(shield.clone(), channel, &[], pieces) {
        Ok(reply) => reply,
        Err(e) => panic!("{channel:?}, {pieces:?}: {e:?}"),
    };
    let whole = run(&[text]);
    let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    for (i, &a) in cuts.iter().enumerate() {
        assert_eq!(run(&[&text[..a], &text[a..]]), whole, "{channel:?} cut at {a}");
        if cuts.len() <= PAIRS_UP_TO {
            for &b in &cuts[i..] {
                assert_eq!(run(&[&text[..a], &text[a..b], &text[b..]]), whole, "{channel:?} cut at {a} and {b}");
            }
        }
    }
    let characters: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
    assert_eq!(run(&characters), whole, "{channel:?} character by character");
    whole
}

#[derive(Default)]
struct Channelled {
    fed: String,
    cleared: u64,
    reply: Reply,
}

impl Channelled {
    fn apply(&mut self, ruling: Ruling) {
        let Ruling { cleared, edits, violation } = ruling;
        assert!(cleared >= self.cleared, "cleared shrinks from {} to {cleared}", self.cleared);
        let to = usize::try_from(cleared).unwrap_or(usize::MAX);
        assert!(self.fed.is_char_boundary(to), "cleared {cleared} is beyond {} or cuts a character", self.fed.len());
        let mut at = self.cleared as usize;
        for Edit { start, end, replacement } in edits {
            let (start, end) = (start as usize, end as usize);
            assert!(at <= start && start <= end && end <= to, "edit {start}..{end} is not within {at}..{to}");
            self.reply.sent.push_str(&self.fed[at..start]);
            self.reply.sent.push_str(&replacement);
            at = end;
        }
        self.reply.sent.push_str(&self.fed[at..to]);
        self.cleared = cleared;
        self.reply.violation = violation;
    }
}

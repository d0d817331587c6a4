//! Shields judge text on its way to a model or to the application.
//!
//! Most shields look for spans of bounded length in text: implement [`Finder`] and the rest follows. A shield that
//! needs the whole conversation, a model or a stream logic of its own implements [`Shield`]; one that asks a model about
//! a stretch of text at a time has its session in [`Windows`].

pub use super::finder::{Action, Finder, Finding};
pub use super::windows::{Judged, Window, Windows};
pub use crate::bindings::shield::exports::stockade::plugin::shield::{Edit, Ruling};
pub use crate::types::{Channel, Direction, Verdict};

use super::glue;
use crate::bindings::shield::exports::stockade::plugin::shield as raw;
use crate::types::{Message, Part};
use crate::{Error, Result, config, panic};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::rc::Rc;

/// Judges conversations and replies. See [`Finder`] for the easy way.
pub trait Shield: DeserializeOwned + 'static {
    /// Most bytes that a session leaves uncleared after a feed; at most 65536.
    fn hold_back(&self) -> u32;

    /// Judges whole messages.
    fn check(&self, direction: Direction, messages: Vec<Message>) -> Result<Verdict>;

    /// Begins to judge one channel of a reply to `conversation`.
    fn session(self: Rc<Self>, channel: Channel, conversation: Vec<Message>) -> Result<Box<dyn Session>>;
}

/// One channel of one reply. Offsets count bytes from the channel's start in the text that was fed.
pub trait Session {
    /// The next piece: whole characters, cut anywhere.
    fn feed(&mut self, text: &str) -> Result<Ruling>;
    /// The channel is complete.
    fn finish(&mut self) -> Result<Ruling>;
}

/// Every text of a conversation that a shield judges: texts, reasoning, tool names, arguments and results.
pub fn texts_mut(messages: &mut [Message]) -> impl Iterator<Item = &mut String> {
    let parts = messages.iter_mut().flat_map(|m| m.parts.iter_mut());
    parts
        .flat_map(|part| match part {
            Part::Text(text) | Part::Reasoning(text) => [Some(text), None],
            Part::ToolCall(call) => [Some(&mut call.name), Some(&mut call.arguments)],
            Part::ToolResult(result) => [Some(&mut result.content), None],
            Part::Image(_) => [None, None],
        })
        .flatten()
}

impl<T: Shield> raw::Guest for glue::Shield<T> {
    type Session = SessionGlue<T>;

    fn hold_back() -> u32 {
        panic::install();
        // A wrong configuration shows in `check` and `feed`, which can say so.
        config::load::<T>().map_or(0, |shield| shield.hold_back())
    }
    fn check(direction: Direction, messages: Vec<Message>) -> Result<Verdict> {
        panic::install();
        config::load::<T>()?.check(direction, messages)
    }
}

/// A session, or why there is none: the constructor cannot answer with an error.
#[doc(hidden)]
pub struct SessionGlue<T> {
    session: RefCell<Result<Box<dyn Session>>>,
    shield: std::marker::PhantomData<T>,
}

impl<T: Shield> raw::GuestSession for SessionGlue<T> {
    fn new(channel: Channel, conversation: Vec<Message>) -> Self {
        panic::install();
        let session = config::load::<T>().and_then(|shield| shield.session(channel, conversation));
        Self { session: RefCell::new(session), shield: std::marker::PhantomData }
    }
    fn feed(&self, text: String) -> Result<Ruling> {
        self.session.borrow_mut().as_mut().map_err(|e| Error::clone(e))?.feed(&text)
    }
    fn finish(&self) -> Result<Ruling> {
        self.session.borrow_mut().as_mut().map_err(|e| Error::clone(e))?.finish()
    }
}

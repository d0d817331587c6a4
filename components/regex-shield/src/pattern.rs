//! One pattern: a regular expression as an automaton, and what a match means.
//!
//! Syntax is the regex crate's with Unicode classes; `\b` and its relatives look at ASCII letters, digits and `_` only,
//! since a decision may look no further than one byte past its window.

use personal_data::{At, Matcher, Treatment};
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::{Anchored, Input};
use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};
use std::fmt;
use stockade_guest::prelude::{Deserialize, Violation, json};

/// Longest match that a configured pattern may declare, in bytes.
pub const MAX_WINDOW: usize = 4096;
/// Bound of one compiled pattern, in bytes.
const MAX_NFA_BYTES: usize = 2 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Mask,
    Block,
}

/// A pattern as the binding configures it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The violation's category.
    pub name: String,
    pub regex: String,
    #[serde(default = "block")]
    pub action: Action,
    /// What a match becomes; without it the name in brackets.
    pub mask: Option<String>,
    /// Longest match in bytes, for a pattern that has no bound of its own.
    #[serde(default = "default_window")]
    pub window: usize,
    /// What the end user is told.
    pub message: Option<String>,
}

fn block() -> Action {
    Action::Block
}
fn default_window() -> usize {
    256
}

/// A configuration that cannot be carried out, in words for the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub struct Pattern {
    name: String,
    action: Action,
    mask: String,
    message: String,
    /// Most bytes of a match.
    window: usize,
    /// Which bytes a match can begin with.
    first: [bool; 256],
    dfa: DFA,
    cache: Cache,
}

impl Pattern {
    pub fn new(config: &Config) -> Result<Self, Refused> {
        let refused = |why: &dyn fmt::Display| Refused(format!("pattern `{}`: {why}", config.name));
        if !(1..=MAX_WINDOW).contains(&config.window) {
            return Err(refused(&format_args!("window is 1 to {MAX_WINDOW} bytes")));
        }
        let hir = regex_syntax::parse(&config.regex).map_err(|e| refused(&e))?;
        if hir.properties().minimum_len() == Some(0) {
            return Err(refused(&"it matches the empty text"));
        }
        let hir = ascii_words(hir);
        let bound = hir.properties().maximum_len();
        let mut first = [false; 256];
        first_bytes(&hir, &mut first);
        let limits = thompson::Config::new().nfa_size_limit(Some(MAX_NFA_BYTES));
        let nfa = thompson::Compiler::new().configure(limits).build_from_hir(&hir).map_err(|e| refused(&e))?;
        let dfa = DFA::builder()
            .configure(DFA::config().skip_cache_capacity_check(true))
            .build_from_nfa(nfa)
            .map_err(|e| refused(&e))?;
        Ok(Self {
            action: config.action,
            mask: config.mask.clone().unwrap_or_else(|| format!("[{}]", config.name)),
            message: config.message.clone().unwrap_or_else(|| format!("The text matches `{}`.", config.name)),
            window: bound.map_or(config.window, |longest| longest.min(config.window)),
            first,
            cache: dfa.create_cache(),
            dfa,
            name: config.name.clone(),
        })
    }

    /// What becomes of a match. It never holds what was matched.
    pub fn treatment(&self) -> Treatment {
        match self.action {
            Action::Mask => Treatment::Mask(self.mask.clone()),
            Action::Block => Treatment::Block(
                Violation::new(&*self.name, &*self.message).with_metadata(&json!({ "pattern": self.name })),
            ),
        }
    }
}

impl Matcher for Pattern {
    fn begins(&self, byte: u8) -> bool {
        self.first[usize::from(byte)]
    }
    fn window(&self) -> usize {
        // One byte more tells whether the word ends.
        self.window + 1
    }
    /// Whether a match begins at `start`: leftmost-first, at most `window` bytes long. `complete`: no text follows.
    fn at(&mut self, text: &[u8], start: usize, complete: bool) -> At {
        let Self { dfa, cache, window, .. } = self;
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        let mut end = None;
        // The automaton fails only when its cache cannot hold a single step, or on bytes it was told to quit at:
        // neither is configured. Should it yet, the shield takes the position for a match rather than let text out.
        let Ok(mut state) = dfa.start_state_forward(cache, &input) else {
            return At::Match(start + 1);
        };
        for at in start..=start + *window {
            let next = match text.get(at) {
                Some(&byte) => dfa.next_state(cache, state, byte),
                None if complete => dfa.next_eoi_state(cache, state),
                None => return At::Open,
            };
            let Ok(next) = next else {
                return At::Match(start + 1);
            };
            state = next;
            // A match shows one byte late: `at` is its end.
            if state.is_match() {
                end = Some(at);
            } else if state.is_dead() || state.is_quit() {
                break;
            }
            if at >= text.len() {
                break;
            }
        }
        end.map_or(At::NoMatch, At::Match)
    }
}

/// Turns Unicode word boundaries into ASCII ones, which a byte-wise automaton can decide.
fn ascii_words(hir: Hir) -> Hir {
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Class(class) => Hir::class(class),
        HirKind::Look(look) => Hir::look(match look {
            Look::WordUnicode => Look::WordAscii,
            Look::WordUnicodeNegate => Look::WordAsciiNegate,
            Look::WordStartUnicode => Look::WordStartAscii,
            Look::WordEndUnicode => Look::WordEndAscii,
            Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
            Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
            other => other,
        }),
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(ascii_words(*repetition.sub)), ..repetition })
        }
        HirKind::Capture(capture) => ascii_words(*capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(ascii_words).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.into_iter().map(ascii_words).collect()),
    }
}

/// Marks all bytes that a match can begin with; returns whether it can be empty.
fn first_bytes(hir: &Hir, first: &mut [bool; 256]) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            first[usize::from(literal.0[0])] = true;
            false
        }
        HirKind::Class(Class::Bytes(class)) => {
            for range in class.ranges() {
                first[usize::from(range.start())..=usize::from(range.end())].fill(true);
            }
            false
        }
        HirKind::Class(Class::Unicode(class)) => {
            // Lead bytes grow with code points.
            let lead = |c: char| usize::from(c.encode_utf8(&mut [0; 4]).as_bytes()[0]);
            for range in class.ranges() {
                first[lead(range.start())..=lead(range.end())].fill(true);
            }
            false
        }
        HirKind::Repetition(repetition) => first_bytes(&repetition.sub, first) || repetition.min == 0,
        HirKind::Capture(capture) => first_bytes(&capture.sub, first),
        HirKind::Concat(parts) => parts.iter().all(|part| first_bytes(part, first)),
        HirKind::Alternation(parts) => {
            // No short cut: every branch has to be marked.
            let mut empty = false;
            for part in parts {
                empty |= first_bytes(part, first);
            }
            empty
        }
    }
}

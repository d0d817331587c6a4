//! Finds the code in a text that is still growing: blocks between fences, or all of it.
//!
//! Invariant: where code is cut depends on the text alone, never on the pieces in which it came.

use crate::language::Language;

/// Most bytes of one part of a long block.
const PART: usize = 32 * 1024;
/// What two parts have in common: most that a rule needs to see at once, where a block is that long.
const OVERLAP: usize = 4 * 1024;
/// Longest line that can be a fence.
const MAX_FENCE: usize = 256;
/// Most bytes that are held: the fence, a part, and the rest of a character.
pub const HOLD_BACK: usize = PART + MAX_FENCE + 8;

/// What a fence says of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// Nothing that tells.
    None,
    Language(Language),
    /// A language without rules.
    Foreign,
}

impl Label {
    fn of(info: &str) -> Label {
        /// Languages that we know to have no rules for, and data.
        const FOREIGN: [&str; 28] = [
            "bash",
            "sh",
            "shell",
            "zsh",
            "console",
            "powershell",
            "json",
            "yaml",
            "yml",
            "toml",
            "ini",
            "sql",
            "go",
            "golang",
            "css",
            "scss",
            "markdown",
            "md",
            "diff",
            "dockerfile",
            "makefile",
            "kotlin",
            "scala",
            "haskell",
            "lua",
            "r",
            "csv",
            "latex",
        ];
        let word = info.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        match Language::of_info(info) {
            Some(language) => Label::Language(language),
            None if word == "html" || word == "htm" => Label::Language(Language::JavaScript),
            None if FOREIGN.contains(&word.as_str()) => Label::Foreign,
            None => Label::None,
        }
    }
}

/// A part of a block.
pub struct Part<'t> {
    pub code: &'t str,
    pub label: Label,
    /// Lines of the block before it.
    pub lines_before: usize,
}

pub struct Fences {
    /// What is not cleared, and of a block's part all.
    text: String,
    /// The text's bytes before that.
    base: u64,
    state: State,
    /// Blocks that have begun.
    pub blocks: usize,
}

enum State {
    /// `at`: a line's start, or the end of what flows.
    Outside {
        at: usize,
        line_start: bool,
    },
    Inside(Block),
}

struct Block {
    /// The fence's character and length; `None`: the whole text is code.
    fence: Option<(u8, usize)>,
    label: Label,
    /// Where the part begins.
    part: usize,
    /// The first line that has not been looked at.
    line: usize,
    lines_before: usize,
}

impl Fences {
    /// A text with code between fences.
    pub fn new() -> Self {
        Self { text: String::new(), base: 0, state: State::Outside { at: 0, line_start: true }, blocks: 0 }
    }

    /// A text that is code.
    pub fn whole() -> Self {
        let block = Block { fence: None, label: Label::None, part: 0, line: 0, lines_before: 0 };
        Self { text: String::new(), base: 0, state: State::Inside(block), blocks: 1 }
    }

    /// Takes more text and hands each part of code to `judge` as soon as it is there. Answers with the offset up to
    /// which all is judged, and with the first error of `judge`, which ends it before the part.
    pub fn feed<E>(
        &mut self,
        text: &str,
        complete: bool,
        mut judge: impl FnMut(Part<'_>) -> Result<(), E>,
    ) -> (u64, Result<(), E>) {
        self.text.push_str(text);
        let mut held = 0;
        let outcome = loop {
            match &mut self.state {
                State::Outside { at, line_start } => match outside(&self.text, at, line_start, complete) {
                    Some(block) => {
                        held = *at;
                        self.blocks += 1;
                        self.state = State::Inside(block);
                    }
                    None => {
                        held = *at;
                        break Ok(());
                    }
                },
                State::Inside(block) => match block.next(&self.text, complete) {
                    Next::More => break Ok(()),
                    Next::Part { end } => {
                        if let Err(e) = judge(block.take(&self.text, end)) {
                            break Err(e);
                        }
                        held = block.advance(&self.text, end);
                    }
                    Next::Closed { end, after } => {
                        if let Err(e) = judge(block.take(&self.text, end)) {
                            break Err(e);
                        }
                        held = after;
                        self.state = State::Outside { at: after, line_start: true };
                    }
                },
            }
        };
        self.forget(held);
        (self.base, outcome)
    }

    /// Drops what is judged.
    fn forget(&mut self, bytes: usize) {
        self.text.drain(..bytes);
        self.base += bytes as u64;
        match &mut self.state {
            State::Outside { at, .. } => *at -= bytes,
            State::Inside(block) => {
                block.part -= bytes;
                block.line = block.line.saturating_sub(bytes);
            }
        }
    }
}

/// Moves on to the next fence; `at` then is its line's start, else where what flows ends.
fn outside(text: &str, at: &mut usize, line_start: &mut bool, complete: bool) -> Option<Block> {
    while *at < text.len() {
        let rest = &text[*at..];
        let newline = rest.find('\n');
        if *line_start {
            let line = &rest[..newline.unwrap_or(rest.len())];
            match fence(line) {
                Fence::Unclear if newline.is_none() && !complete => return None,
                Fence::Open(mark, length, info) => match newline {
                    Some(end) => {
                        let part = *at + end + 1;
                        let label = Label::of(info);
                        return Some(Block { fence: Some((mark, length)), label, part, line: part, lines_before: 0 });
                    }
                    None if !complete => return None,
                    None => {}
                },
                _ => {}
            }
        }
        *line_start = newline.is_some();
        *at += newline.map_or(rest.len(), |end| end + 1);
    }
    None
}

enum Fence<'t> {
    /// Its character, its length, what follows.
    Open(u8, usize, &'t str),
    /// The begin of one, perhaps.
    Unclear,
    Not,
}

/// Indentation and quote marks may stand before a fence.
fn fence(line: &str) -> Fence<'_> {
    if line.len() > MAX_FENCE {
        return Fence::Not;
    }
    let mark = line.trim_start_matches([' ', '\t', '>']);
    let Some(&first) = mark.as_bytes().first() else { return Fence::Unclear };
    if first != b'`' && first != b'~' {
        return Fence::Not;
    }
    let info = mark.trim_start_matches(char::from(first));
    let length = mark.len() - info.len();
    match length {
        _ if first == b'`' && info.contains('`') => Fence::Not,
        3.. => Fence::Open(first, length, info.trim()),
        _ if info.is_empty() => Fence::Unclear,
        _ => Fence::Not,
    }
}

enum Next {
    /// More text has to come.
    More,
    /// A part ends here and the block goes on.
    Part { end: usize },
    /// The block ends, and the line of its fence.
    Closed { end: usize, after: usize },
}

impl Block {
    fn next(&mut self, text: &str, complete: bool) -> Next {
        let limit = self.part + PART;
        while self.line < text.len() {
            let newline = text[self.line..].find('\n').map(|n| self.line + n + 1);
            let end = newline.unwrap_or(text.len());
            let decided = newline.is_some() || complete;
            if end > limit && (decided || text.len() > limit + 3) {
                let line_fits = self.line > self.part + OVERLAP;
                return Next::Part { end: if line_fits { self.line } else { text.floor_char_boundary(limit) } };
            }
            if !decided {
                return Next::More;
            }
            if self.closes(text[self.line..end].trim_end_matches(['\n', '\r'])) {
                return Next::Closed { end: self.line, after: end };
            }
            self.line = end;
        }
        if complete {
            return Next::Closed { end: text.len(), after: text.len() };
        }
        Next::More
    }

    fn closes(&self, line: &str) -> bool {
        let Some((mark, length)) = self.fence else { return false };
        self.line >= self.part
            && matches!(fence(line), Fence::Open(found, count, "") if found == mark && count >= length)
    }

    fn take<'t>(&self, text: &'t str, end: usize) -> Part<'t> {
        Part { code: &text[self.part..end], label: self.label, lines_before: self.lines_before }
    }

    /// Begins the next part, somewhat before the end of this one, and answers where.
    fn advance(&mut self, text: &str, end: usize) -> usize {
        let overlap = text.floor_char_boundary(end - OVERLAP);
        let next = text[overlap..end].find('\n').map_or(overlap, |n| overlap + n + 1);
        self.lines_before += text[self.part..next].bytes().filter(|&b| b == b'\n').count();
        self.part = next;
        next
    }
}

//! Reads on from a start position, and knows when only more text can tell.

/// Bytes before a match that a decision may look at: room for `Driver's licence number (UK): `.
pub const LOOK_BACK: usize = 64;

/// The text so far ends before the decision does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open;

#[derive(Clone)]
pub struct Reader<'a> {
    text: &'a [u8],
    start: usize,
    at: usize,
    end: usize,
    complete: bool,
}

impl<'a> Reader<'a> {
    /// Reads at most `window` bytes from `start` on; what lies behind them counts as the text's end. `complete`: no text
    /// follows.
    pub fn new(text: &'a [u8], start: usize, window: usize, complete: bool) -> Self {
        let whole = start.saturating_add(window);
        let end = whole.min(text.len());
        Self { text, start, at: start, end, complete: complete || whole <= text.len() }
    }

    /// The next byte; `None` at the end.
    pub fn peek(&self) -> Result<Option<u8>, Open> {
        match self.text[..self.end].get(self.at) {
            Some(&byte) => Ok(Some(byte)),
            None if self.complete => Ok(None),
            None => Err(Open),
        }
    }

    /// The byte behind the next one.
    pub fn peek_second(&self) -> Result<Option<u8>, Open> {
        let mut ahead = self.clone();
        if ahead.next_if(|_| true)?.is_none() {
            return Ok(None);
        }
        ahead.peek()
    }

    pub fn next_if(&mut self, belongs: impl FnOnce(u8) -> bool) -> Result<Option<u8>, Open> {
        let next = self.peek()?.filter(|&byte| belongs(byte));
        self.at += usize::from(next.is_some());
        Ok(next)
    }

    /// Reads while bytes belong, at most `most`; returns what it read.
    pub fn run(&mut self, most: usize, belongs: impl Fn(u8) -> bool) -> Result<&'a [u8], Open> {
        let from = self.at;
        while self.at - from < most && self.next_if(&belongs)?.is_some() {}
        Ok(&self.text[from..self.at])
    }

    /// Reads exactly these bytes, or nothing.
    pub fn literal(&mut self, literal: &[u8]) -> Result<bool, Open> {
        let from = self.at;
        for &want in literal {
            if self.next_if(|byte| byte == want)?.is_none() {
                self.at = from;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the next byte is.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What has been read.
    pub fn read(&self) -> &'a [u8] {
        &self.text[self.start..self.at]
    }

    /// Whether no letter, digit or `_` follows.
    pub fn at_word_end(&self) -> Result<bool, Open> {
        Ok(!self.peek()?.is_some_and(is_word))
    }

    /// At most [`LOOK_BACK`] bytes before the start.
    pub fn before(&self) -> &'a [u8] {
        &self.text[self.start.saturating_sub(LOOK_BACK)..self.start]
    }

    /// Whether one of these words (lower case) stands close before the start, as a word of its own.
    pub fn follows_word<W: AsRef<str>>(&self, words: &[W]) -> bool {
        words.iter().any(|word| contains_word(self.before(), word.as_ref().as_bytes()))
    }
}

pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn contains_word(text: &[u8], word: &[u8]) -> bool {
    let letter = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_alphabetic);
    !word.is_empty()
        && text.windows(word.len()).enumerate().any(|(at, here)| {
            here.eq_ignore_ascii_case(word) && !letter(at.checked_sub(1)) && !letter(Some(at + word.len()))
        })
}

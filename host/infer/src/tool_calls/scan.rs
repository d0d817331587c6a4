//! Finds where a bracketed value ends, as its text comes.

/// In which language brackets and strings are read.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub enum Syntax {
    #[default]
    Json,
    /// Round brackets count and strings may stand in single quotes.
    Python,
}

/// Finds the end of an object or list by its brackets. Whether they match is the parser's to say.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Scan {
    syntax: Syntax,
    at: usize,
    depth: u32,
    /// The quote that ends the string.
    quote: Option<u8>,
    escaped: bool,
    /// Bytes up to and including the closing bracket.
    pub end: Option<usize>,
}

/// The text cannot be a bracketed value.
#[derive(Debug)]
pub struct NoValue;

impl Scan {
    pub fn of(syntax: Syntax) -> Self {
        Self { syntax, ..Self::default() }
    }

    /// Goes on to the end of `text`, which must start with what earlier calls saw.
    pub fn run(&mut self, text: &str) -> Result<(), NoValue> {
        while self.end.is_none() && self.at < text.len() {
            let byte = text.as_bytes()[self.at];
            self.at += 1;
            if let Some(quote) = self.quote {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    _ if byte == quote => self.quote = None,
                    _ => {}
                }
                continue;
            }
            let python = self.syntax == Syntax::Python;
            match byte {
                b'{' | b'[' => self.depth += 1,
                _ if self.depth == 0 && !byte.is_ascii_whitespace() => return Err(NoValue),
                b'(' if python => self.depth += 1,
                b'"' => self.quote = Some(byte),
                b'\'' if python => self.quote = Some(byte),
                b'}' | b']' => self.close(),
                b')' if python => self.close(),
                _ => {}
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        if self.depth == 0 {
            self.end = Some(self.at);
        }
    }
}

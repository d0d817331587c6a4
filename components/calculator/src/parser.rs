//! Expressions, evaluated as they are read. From the loosest to the tightest: `+ -`, `* / %`, sign, `^`, `!`.

use crate::functions;
use crate::number::{Number, Outcome};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::Zero;

/// Longest expression in bytes.
const MAX_BYTES: usize = 4_096;
/// Most parentheses, signs and powers inside of each other.
const MAX_DEPTH: u32 = 64;
/// Most arguments of a function.
const MAX_ARGUMENTS: usize = 64;
/// Largest decimal exponent of a number that is written out.
const MAX_EXPONENT: i32 = 4_000;

pub fn evaluate(text: &str) -> Outcome {
    if text.len() > MAX_BYTES {
        return Err(format!("the expression has more than {MAX_BYTES} bytes"));
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(value),
        Some(c) => Err(parser.wrong(&format!("`{c}` is out of place"))),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl Parser<'_> {
    fn sum(&mut self) -> Outcome {
        let mut value = self.product()?;
        loop {
            if self.takes("+") {
                value = value.with(&self.product()?, |a, b| a + b, |a, b| a + b)?;
            } else if self.takes("-") || self.takes("−") {
                value = value.with(&self.product()?, |a, b| a - b, |a, b| a - b)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Outcome {
        let mut value = self.signed()?;
        loop {
            if self.takes("*") || self.takes("×") || self.takes("·") {
                value = value.with(&self.signed()?, |a, b| a * b, |a, b| a * b)?;
            } else if self.takes("/") || self.takes("÷") {
                let divisor = self.divisor()?;
                value = value.with(&divisor, |a, b| a / b, |a, b| a / b)?;
            } else if self.takes("%") {
                // The remainder has the divisor's sign, as in Python.
                let divisor = self.divisor()?;
                value = value.with(&divisor, |a, b| a - b * (a / b).floor(), |a, b| a - b * (a / b).floor())?;
            } else {
                return Ok(value);
            }
        }
    }

    fn divisor(&mut self) -> Outcome {
        let divisor = self.signed()?;
        if divisor.is_zero() { Err("division by zero".into()) } else { Ok(divisor) }
    }

    fn signed(&mut self) -> Outcome {
        self.deeper(|p| {
            if p.takes("-") || p.takes("−") {
                let value = p.signed()?;
                value.with(&Number::integer(-1), |a, b| a * b, |a, b| a * b)
            } else if p.takes("+") {
                p.signed()
            } else {
                p.power()
            }
        })
    }

    fn power(&mut self) -> Outcome {
        let base = self.postfix()?;
        // To the right: `2 ^ 3 ^ 2` is `2 ^ 9`, and `2 ^ -1` a half.
        if self.takes("**") || self.takes("^") { base.power(&self.signed()?) } else { Ok(base) }
    }

    fn postfix(&mut self) -> Outcome {
        let mut value = self.primary()?;
        while self.takes("!") {
            value = functions::factorial(&value)?;
        }
        Ok(value)
    }

    fn primary(&mut self) -> Outcome {
        match self.peek() {
            Some('(') => {
                self.takes("(");
                let value = self.sum()?;
                self.closes()?;
                Ok(value)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some('√') => {
                self.takes("√");
                let value = self.deeper(Self::primary)?;
                functions::call("sqrt", &[value])
            }
            Some('π') => {
                self.takes("π");
                functions::constant("pi").ok_or_else(String::new)
            }
            Some(c) if c.is_ascii_alphabetic() => self.name(),
            Some(c) => Err(self.wrong(&format!("`{c}` is out of place"))),
            None => Err("the expression ends too early".into()),
        }
    }

    fn name(&mut self) -> Outcome {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        self.at += end;
        if !self.takes("(") {
            return functions::constant(&name).ok_or_else(|| self.wrong(&format!("`{name}` has no value")));
        }
        let mut arguments = vec![self.sum()?];
        while self.takes(",") {
            if arguments.len() == MAX_ARGUMENTS {
                return Err(format!("a function takes at most {MAX_ARGUMENTS} arguments"));
            }
            arguments.push(self.sum()?);
        }
        self.closes()?;
        functions::call(&name, &arguments)
    }

    /// Digits, a point and an exponent; underscores between digits are ignored.
    fn number(&mut self) -> Outcome {
        let bytes = self.text.as_bytes();
        let (mut digits, mut after, mut point) = (String::new(), 0i32, false);
        while let Some(&b) = bytes.get(self.at) {
            match b {
                b'0'..=b'9' => {
                    digits.push(b.into());
                    after += i32::from(point);
                }
                b'_' if !digits.is_empty() => {}
                b'.' if !point => point = true,
                _ => break,
            }
            self.at += 1;
        }
        if digits.is_empty() {
            return Err(self.wrong("a point without digits"));
        }
        let exponent = self.exponent()? - after;
        let value: BigInt = digits.parse().map_err(|_| self.wrong("not a number"))?;
        if value.is_zero() {
            return Ok(Number::integer(0));
        }
        let scale = BigRational::from_integer(10.into()).pow(exponent);
        Number::exact(BigRational::from_integer(value) * scale)
    }

    /// `e` and an integer; an `e` that no digit follows is something else.
    fn exponent(&mut self) -> Result<i32, String> {
        let rest = &self.text[self.at..];
        let Some(after) = rest.strip_prefix(['e', 'E']) else { return Ok(0) };
        let unsigned = after.strip_prefix(['+', '-']).unwrap_or(after);
        let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Ok(0);
        }
        let length = after.len() - unsigned.len() + digits;
        self.at += 1 + length;
        let exponent = after[..length].parse::<i32>().ok().filter(|e| e.abs() <= MAX_EXPONENT);
        exponent.ok_or_else(|| format!("an exponent is at most {MAX_EXPONENT}"))
    }

    /// The next character that is not white space.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn takes(&mut self, symbol: &str) -> bool {
        self.peek();
        let rest = &self.text[self.at..];
        // `*` is not the first half of `**`.
        let found = rest.starts_with(symbol) && !(symbol == "*" && rest.starts_with("**"));
        if found {
            self.at += symbol.len();
        }
        found
    }

    fn closes(&mut self) -> Result<(), String> {
        if self.takes(")") { Ok(()) } else { Err(self.wrong("a `)` is missing")) }
    }

    fn deeper(&mut self, inner: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels"));
        }
        let value = inner(self);
        self.depth -= 1;
        value
    }

    fn wrong(&self, what: &str) -> String {
        format!("{what} (at character {})", self.text[..self.at].chars().count() + 1)
    }
}

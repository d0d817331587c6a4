//! Reads calls written as Python: `[f(a=1), g(b="x", c=[True, None])]`.
//!
//! Keyword arguments and literals alone: numbers, strings, booleans, `None`, lists, tuples and dictionaries. Positional
//! arguments, names and operators are no calls. The JSON names `true`, `false` and `null` are read as well, since models
//! mix them in. Invariant: depth is bounded, and whatever is no such list gives `None`.

use std::collections::HashSet;
use std::iter::Peekable;
use std::str::Chars;

/// Deepest nesting of a value.
const MAX_DEPTH: u32 = 32;

/// Names and arguments, as a JSON object, of the calls that the text is a list of; at least one.
pub fn calls(text: &str) -> Option<Vec<(String, String)>> {
    let mut reader = Reader { rest: text.chars().peekable() };
    reader.expect('[')?;
    let mut calls = Vec::new();
    loop {
        let name = reader.name()?;
        reader.expect('(')?;
        calls.push((name, reader.arguments()?));
        if !reader.accepts(',') {
            break;
        }
        if reader.next_is(']') {
            break;
        }
    }
    reader.expect(']')?;
    reader.space();
    reader.rest.next().is_none().then_some(calls)
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn space(&mut self) {
        while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
    }

    fn next_is(&mut self, wanted: char) -> bool {
        self.space();
        self.rest.peek() == Some(&wanted)
    }

    fn accepts(&mut self, wanted: char) -> bool {
        self.next_is(wanted) && self.rest.next().is_some()
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        self.accepts(wanted).then_some(())
    }

    /// Characters as long as they belong to a name; at least one.
    fn name(&mut self) -> Option<String> {
        self.space();
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|&c| super::is_of_name(c)) {
            name.push(c);
        }
        (!name.is_empty()).then_some(name)
    }

    /// `a=1, b="x")` as an object, each name once.
    fn arguments(&mut self) -> Option<String> {
        let mut seen = HashSet::new();
        let mut object = String::from("{");
        while !self.accepts(')') {
            if !seen.is_empty() {
                self.expect(',')?;
                object.push_str(", ");
                if self.accepts(')') {
                    // Python allows a comma at the end.
                    object.truncate(object.len() - 2);
                    break;
                }
            }
            let name = self.name()?;
            object.push_str(&quoted(&name));
            object.push_str(": ");
            if !seen.insert(name) {
                return None;
            }
            self.expect('=')?;
            self.value(&mut object, 0)?;
        }
        object.push('}');
        Some(object)
    }

    fn value(&mut self, out: &mut String, depth: u32) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match *self.rest.peek()? {
            quote @ ('"' | '\'') => {
                let mut text = self.string(quote)?;
                // Strings beside each other are one.
                while let Some(&quote) = self.adjacent_quote() {
                    text.push_str(&self.string(quote)?);
                }
                out.push_str(&quoted(&text));
            }
            '[' => self.list(']', out, depth)?,
            '(' => self.list(')', out, depth)?,
            '{' => self.dictionary(out, depth)?,
            c if c.is_ascii_alphabetic() => out.push_str(match self.name()?.as_str() {
                "True" | "true" => "true",
                "False" | "false" => "false",
                "None" | "null" => "null",
                _ => return None,
            }),
            _ => out.push_str(&self.number()?),
        }
        Some(())
    }

    fn adjacent_quote(&mut self) -> Option<&char> {
        self.space();
        self.rest.peek().filter(|c| matches!(c, '"' | '\''))
    }

    fn list(&mut self, close: char, out: &mut String, depth: u32) -> Option<()> {
        self.rest.next();
        out.push('[');
        let mut first = true;
        while !self.accepts(close) {
            if !first {
                self.expect(',')?;
                if self.accepts(close) {
                    break;
                }
                out.push_str(", ");
            }
            self.value(out, depth + 1)?;
            first = false;
        }
        out.push(']');
        Some(())
    }

    fn dictionary(&mut self, out: &mut String, depth: u32) -> Option<()> {
        self.rest.next();
        out.push('{');
        let mut first = true;
        while !self.accepts('}') {
            if !first {
                self.expect(',')?;
                if self.accepts('}') {
                    break;
                }
                out.push_str(", ");
            }
            let quote = *self.adjacent_quote()?;
            out.push_str(&quoted(&self.string(quote)?));
            self.expect(':')?;
            out.push_str(": ");
            self.value(out, depth + 1)?;
            first = false;
        }
        out.push('}');
        Some(())
    }

    /// A number that JSON has a form for: underscores go, `.5`, `5.` and `+5` get their zeros and lose their sign.
    fn number(&mut self) -> Option<String> {
        let mut text = String::new();
        while let Some(c) = self.rest.next_if(|&c| c.is_ascii_alphanumeric() || "+-._".contains(c)) {
            if c != '_' {
                text.push(c);
            }
        }
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text.strip_prefix('+').unwrap_or(&text)),
        };
        let mut digits = if digits.starts_with('.') { format!("0{digits}") } else { digits.to_owned() };
        if digits.ends_with('.') {
            digits.push('0');
        }
        let number = format!("{sign}{digits}");
        // What is a number, JSON decides.
        serde_json::from_str::<serde_json::Number>(&number).ok().map(|_| number)
    }

    fn string(&mut self, quote: char) -> Option<String> {
        self.rest.next();
        let mut text = String::new();
        loop {
            match self.rest.next()? {
                c if c == quote => return Some(text),
                '\\' => self.escape(&mut text)?,
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let c = match self.rest.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            '0' => '\0',
            'x' => self.code(2)?,
            'u' => self.code(4)?,
            'U' => self.code(8)?,
            // A line that goes on.
            '\n' => return Some(()),
            c @ ('\\' | '\'' | '"' | '/') => c,
            // Python keeps the backslash of an escape that it does not know.
            c => {
                text.push('\\');
                c
            }
        };
        text.push(c);
        Some(())
    }

    fn code(&mut self, digits: u32) -> Option<char> {
        let mut value = 0;
        for _ in 0..digits {
            value = value * 16 + self.rest.next()?.to_digit(16)?;
        }
        char::from_u32(value)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_become_json_and_all_else_is_no_call() {
        for (text, want) in [
            ("[f()]", Some(vec![("f", "{}")])),
            ("[ f ( a = 1 , ) , g(b='x') , ]", Some(vec![("f", r#"{"a": 1}"#), ("g", r#"{"b": "x"}"#)])),
            (
                r#"[f(a=-1.5e3, b=True, c=None, d=false, e=[1, (2, 3,), []], g={"k": 'v', 'l': {}})]"#,
                Some(vec![(
                    "f",
                    r#"{"a": -1.5e3, "b": true, "c": null, "d": false, "e": [1, [2, 3], []], "g": {"k": "v", "l": {}}}"#,
                )]),
            ),
            (
                r#"[f(a="it's \"x\"\n\u00e9\q", b='a' "b")]"#,
                Some(vec![("f", r#"{"a": "it's \"x\"\né\\q", "b": "ab"}"#)]),
            ),
            ("[f(a=1_000, b=.5, c=5., d=+2)]", Some(vec![("f", r#"{"a": 1000, "b": 0.5, "c": 5.0, "d": 2}"#)])),
            ("[f.g-h(a_b=1)]", Some(vec![("f.g-h", r#"{"a_b": 1}"#)])),
            ("", None),
            ("[]", None),
            ("[f]", None),
            ("[f(1)]", None),
            ("[f(a=b)]", None),
            ("[f(a=1+1)]", None),
            ("[f(a=1, a=2)]", None),
            ("[f(a=1 b=2)]", None),
            ("[f(a=0x10)]", None),
            ("[f(a='x)]", None),
            ("[f(a=1)] and", None),
            ("[f(a={1: 2})]", None),
            ("[f(a='\\ud800')]", None),
        ] {
            let want = want.map(|calls| calls.into_iter().map(|(n, a)| (n.to_string(), a.to_string())).collect());
            assert_eq!(calls(text), want, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("[f(a={}{})]", "[".repeat(n), "]".repeat(n));
        assert!(calls(&nested(33)).is_some());
        assert!(calls(&nested(34)).is_none());
        assert!(calls(&nested(100_000)).is_none());
    }
}

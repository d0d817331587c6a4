//! JSON text as it is judged: an escape stands only where JSON needs one.
//!
//! `"ann\u0040example.org"` is an address to whoever reads the JSON and none to whoever reads the text. So what shields judge
//! is written anew first, and written so it goes on: what was judged is what arrives.
//!
//! Invariant: the value stays the same, however the text was cut; text that is no JSON comes out without its escapes of
//! printable characters all the same.

use crate::chat::{Message, Part, Role};
use serde::de::IgnoredAny;

/// Writes a text anew that comes in pieces. Holds back at most the eleven bytes of an escape that is not whole.
#[derive(Debug, Default)]
pub struct Unescaper {
    held: String,
}

impl Unescaper {
    /// The next piece, as far as it is decided.
    pub fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let mut out = String::with_capacity(self.held.len());
        let mut rest = self.held.as_str();
        while let Some(at) = rest.find('\\') {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            let Some((length, character)) = escape(rest) else {
                self.held = rest.to_string();
                return out;
            };
            write(character, &rest[..length], &mut out);
            rest = &rest[length..];
        }
        out.push_str(rest);
        self.held.clear();
        out
    }

    /// The end: an escape that never became whole, as it is.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// A whole text written anew.
pub fn unescape(text: &str) -> String {
    let mut unescaper = Unescaper::default();
    unescaper.push(text) + &unescaper.finish()
}

/// Writes anew what is JSON in a message: the arguments of its tool calls, and tools' results that are objects or lists.
pub fn settle_message(message: &mut Message) {
    for part in &mut message.parts {
        match part {
            Part::ToolCall(call) => call.arguments = unescape(&call.arguments),
            Part::ToolResult(result) => settle(&mut result.content),
            Part::Text { text } if message.role == Role::Tool => settle(text),
            Part::Text { .. } | Part::Reasoning { .. } | Part::Image(_) => {}
        }
    }
}

/// Writes a text anew when it is a JSON object or list.
pub fn settle(text: &mut String) {
    let json = text.contains('\\') && text.trim_start().starts_with(['{', '[']);
    if json && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        *text = unescape(text);
    }
}

/// Bytes of the escape that `text` begins with, and the character that it stands for when there is another way to write
/// it; `None` when more text tells.
fn escape(text: &str) -> Option<(usize, Option<char>)> {
    match text.as_bytes().get(1)? {
        b'/' => Some((2, Some('/'))),
        b'u' => match unit(&text[2..]) {
            Unit::Open => None,
            Unit::Broken => Some((2, None)),
            Unit::Of(high @ 0xD800..0xDC00) => match text[6..].strip_prefix("\\u") {
                None if "\\u".starts_with(&text[6..]) => None,
                None => Some((6, None)),
                Some(low) => match unit(low) {
                    Unit::Open => None,
                    Unit::Of(low @ 0xDC00..0xE000) => {
                        Some((12, char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))))
                    }
                    Unit::Of(_) | Unit::Broken => Some((6, None)),
                },
            },
            Unit::Of(unit) => Some((6, char::from_u32(unit))),
        },
        _ => Some((1 + text[1..].chars().next().map_or(0, char::len_utf8), None)),
    }
}

enum Unit {
    Of(u32),
    /// More digits tell.
    Open,
    Broken,
}

/// The four hexadecimal digits that `text` begins with.
fn unit(text: &str) -> Unit {
    let digits = text.bytes().take(4).take_while(u8::is_ascii_hexdigit).count();
    match digits {
        4 => u32::from_str_radix(&text[..4], 16).map_or(Unit::Broken, Unit::Of),
        _ if digits == text.len() => Unit::Open,
        _ => Unit::Broken,
    }
}

/// A character as JSON text has to write it; `escaped` is how it came.
fn write(character: Option<char>, escaped: &str, out: &mut String) {
    match character {
        Some('"') => out.push_str("\\\""),
        Some('\\') => out.push_str("\\\\"),
        Some('\n') => out.push_str("\\n"),
        Some('\r') => out.push_str("\\r"),
        Some('\t') => out.push_str("\\t"),
        Some(c) if !c.is_control() => out.push(c),
        _ => out.push_str(escaped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ToolCall, ToolResult};
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn escapes_stand_only_where_json_needs_them() {
        for (text, want) in [
            (r#"{"to":"ann\u0040example.org"}"#, r#"{"to":"ann@example.org"}"#),
            (r#""http:\/\/a.b\u002fc""#, r#""http://a.b/c""#),
            (r#""\uD83D\uDE00 \ud83d\ude00""#, "\"😀 😀\""),
            (r#""\u0022 \u005C\u005cu0040 \" \\u0040""#, r#""\" \\\\u0040 \" \\u0040""#),
            (r#""\u000A\u000d\u0009\u0000\u007f\n\b""#, r#""\n\r\t\u0000\u007f\n\b""#),
            (r#""\ud800 \udc00 \ud800\u0041 \ud800\n""#, r#""\ud800 \udc00 \ud800A \ud800\n""#),
            (r#"no json \u0041 \u00g1 \x \"#, r#"no json A \u00g1 \x \"#),
            (r"\u00", r"\u00"),
            (r"\ud83d\ude", r"\ud83d\ude"),
            (r"\é\u00é", r"\é\u00é"),
        ] {
            assert_eq!(unescape(text), want, "{text}");
        }
    }

    #[test]
    fn messages_have_their_json_written_anew_and_nothing_else() {
        let escaped = r#"{"a":"\u0041"}"#.to_string();
        let call = |arguments: &str| {
            Part::ToolCall(ToolCall { id: "1".into(), name: "t".into(), arguments: arguments.into() })
        };
        let result = |content: &str| {
            Part::ToolResult(ToolResult { call_id: "1".into(), content: content.into(), is_error: false })
        };
        let prose = r"a \u0041";
        let text = Part::Text { text: escaped.clone() };
        let message = |role, parts: &[Part]| Message { role, parts: parts.to_vec(), name: None };
        let mut own = message(Role::Assistant, &[call(&escaped), text.clone()]);
        settle_message(&mut own);
        assert_eq!(own.parts, [call(r#"{"a":"A"}"#), text]);
        let mut answered = message(Role::Tool, &[result(&escaped), result(prose), Part::Text { text: escaped }]);
        settle_message(&mut answered);
        let plain = Part::Text { text: r#"{"a":"A"}"#.into() };
        assert_eq!(answered.parts, [result(r#"{"a":"A"}"#), result(prose), plain]);
    }

    /// Text with each character of `mask` written as an escape.
    fn escaped(text: &str, mask: &[bool]) -> String {
        let mut out = String::from("\"");
        for (c, always) in text.chars().zip(mask.iter().cycle()) {
            if *always || c.is_control() || c == '"' || c == '\\' {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            } else {
                out.push(c);
            }
        }
        out + "\""
    }

    proptest! {
        #[test]
        fn the_value_stays_and_no_printable_character_is_escaped_at_any_cut(
            text in "(?s)(.|[a-z@\\\\\"\n😀]){0,40}",
            mask in prop::collection::vec(any::<bool>(), 1..9),
            cuts in prop::collection::vec(0usize..400, 0..12),
        ) {
            let json = escaped(&text, &mask);
            let mut unescaper = Unescaper::default();
            let (mut out, mut at) = (String::new(), 0);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| json.floor_char_boundary(c)).collect();
            cuts.sort_unstable();
            for cut in cuts {
                out += &unescaper.push(&json[at..cut]);
                prop_assert!(unescaper.held.len() < 12);
                at = cut;
            }
            out += &unescaper.push(&json[at..]);
            out += &unescaper.finish();
            prop_assert_eq!(&out, &unescape(&json));
            prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), Value::String(text));
            let mut rest = out.as_str();
            while let Some(found) = rest.find('\\') {
                if rest[found + 1..].starts_with('u') {
                    let code = u32::from_str_radix(&rest[found + 2..found + 6], 16).unwrap();
                    prop_assert!(char::from_u32(code).unwrap().is_control(), "{}", out);
                }
                rest = &rest[found + 2..];
            }
        }
    }
}

//! HTML by the standard's tokenizer, which no bytes make fail; what is not shown is left out.

use html5gum::{Token, Tokenizer};

/// Elements whose contents are not text of the page.
const HIDDEN: &[&[u8]] = &[b"script", b"style", b"noscript", b"template", b"svg", b"head"];
/// Elements that flow with the text around them.
const INLINE: &[&[u8]] = &[
    b"a", b"abbr", b"b", b"bdi", b"bdo", b"cite", b"code", b"em", b"font", b"i", b"kbd", b"label", b"mark", b"q", b"s",
    b"samp", b"small", b"span", b"strong", b"sub", b"sup", b"time", b"tt", b"u", b"var", b"wbr",
];

pub fn text(html: &str) -> String {
    let mut out = String::new();
    let mut hidden: Option<(Vec<u8>, usize)> = None;
    for Ok(token) in Tokenizer::new(html) {
        match token {
            Token::StartTag(tag) => {
                let name = tag.name.to_vec();
                if let Some((outer, depth)) = &mut hidden {
                    if *outer == name && !tag.self_closing {
                        *depth += 1;
                    }
                } else if HIDDEN.contains(&name.as_slice()) && !tag.self_closing {
                    hidden = Some((name, 1));
                } else if !INLINE.contains(&name.as_slice()) {
                    line(&mut out);
                    match name.as_slice() {
                        [b'h', level @ b'1'..=b'6'] => {
                            out.push_str(&"#".repeat(usize::from(level - b'0')));
                            out.push(' ');
                        }
                        b"li" => out.push_str("- "),
                        _ => {}
                    }
                }
            }
            Token::EndTag(tag) => {
                let ends = hidden.as_mut().is_some_and(|(outer, depth)| {
                    *depth -= usize::from(*outer == tag.name.to_vec());
                    *depth == 0
                });
                if ends {
                    hidden = None;
                } else if hidden.is_none() && !INLINE.contains(&tag.name.to_vec().as_slice()) {
                    line(&mut out);
                }
            }
            Token::String(text) if hidden.is_none() => flow(&mut out, &String::from_utf8_lossy(&text)),
            _ => {}
        }
    }
    out.trim().to_string()
}

/// Ends the line, unless nothing is on it.
fn line(out: &mut String) {
    while out.ends_with(' ') {
        out.pop();
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
}

/// Adds text with each run of blanks as one.
fn flow(out: &mut String, text: &str) {
    for c in text.chars() {
        if !c.is_whitespace() {
            out.push(c);
        } else if !out.is_empty() && !out.ends_with([' ', '\n']) {
            out.push(' ');
        }
    }
}

//! HTML as text: what a reader sees, with headings, list items and links kept.
//!
//! One pass over the tokens of the standard's tokenizer, without a tree: time and memory are in proportion to the page.

use crate::address;
use html5gum::{DefaultEmitter, Token, Tokenizer};

/// Elements whose content nobody reads.
const HIDDEN: [&[u8]; 8] = [b"script", b"style", b"noscript", b"template", b"svg", b"iframe", b"object", b"select"];
/// Elements that stand in a line or paragraph of their own.
const LINES: [&[u8]; 14] = [
    b"br",
    b"div",
    b"tr",
    b"dt",
    b"dd",
    b"option",
    b"header",
    b"footer",
    b"main",
    b"nav",
    b"form",
    b"figcaption",
    b"address",
    b"summary",
];
const PARAGRAPHS: [&[u8]; 12] =
    [b"p", b"ul", b"ol", b"dl", b"table", b"section", b"article", b"aside", b"blockquote", b"pre", b"hr", b"figure"];

pub fn to_text(html: &str, base: &str) -> String {
    let mut page = Page { base, text: String::new(), hidden: None, preformatted: 0, link: None };
    let mut emitter = DefaultEmitter::default();
    // What stands in a script or a title is text, as in a browser.
    emitter.naively_switch_states(true);
    for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
        match token {
            Token::StartTag(tag) => page.open(&tag),
            Token::EndTag(tag) => page.close(&tag.name),
            Token::String(text) => page.write(&String::from_utf8_lossy(&text)),
            _ => {}
        }
    }
    page.close(b"a");
    page.text.trim().to_string()
}

struct Page<'a> {
    base: &'a str,
    text: String,
    /// The hidden element that is open, and how many of its kind.
    hidden: Option<(Vec<u8>, u32)>,
    preformatted: u32,
    /// Where the open link leads, and where its text begins.
    link: Option<(String, usize)>,
}

impl Page<'_> {
    fn open(&mut self, tag: &html5gum::StartTag<()>) {
        let name: &[u8] = &tag.name;
        if let Some((hidden, depth)) = &mut self.hidden {
            *depth += u32::from(hidden == name && !tag.self_closing);
            return;
        }
        if HIDDEN.contains(&name) {
            if !tag.self_closing {
                self.hidden = Some((name.to_vec(), 1));
            }
            return;
        }
        self.breaks(name);
        match name {
            [b'h', level @ b'1'..=b'6'] => {
                self.break_lines(2);
                self.text.extend(std::iter::repeat_n('#', usize::from(level - b'0')));
                self.text.push(' ');
            }
            b"li" => {
                self.break_lines(1);
                self.text.push_str("- ");
            }
            b"td" | b"th" => self.cell(),
            b"pre" => self.preformatted += 1,
            b"img" => {
                if let Some(alt) = tag.attributes.get(&b"alt"[..]) {
                    self.write(&String::from_utf8_lossy(alt));
                }
            }
            b"a" => {
                self.close(b"a");
                let href = tag.attributes.get(&b"href"[..]).map(|v| String::from_utf8_lossy(v).into_owned());
                let leads = href.map(|h| address::join(self.base, &h)).filter(|h| h.starts_with("http"));
                self.link = leads.map(|h| (h, self.text.len()));
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &[u8]) {
        if let Some((hidden, depth)) = &mut self.hidden {
            if hidden == name {
                *depth -= 1;
                if *depth == 0 {
                    self.hidden = None;
                }
            }
            return;
        }
        match name {
            b"a" => {
                let Some((href, start)) = self.link.take() else { return };
                let shown = self.text.get(start..).unwrap_or_default();
                if !shown.trim().is_empty() && !shown.contains('\n') && shown.trim() != href {
                    let at = start + (shown.len() - shown.trim_start().len());
                    self.text.insert(at, '[');
                    self.text.push_str(&format!("]({href})"));
                }
            }
            b"pre" => {
                self.preformatted = self.preformatted.saturating_sub(1);
                self.break_lines(2);
            }
            b"title" | [b'h', b'1'..=b'6'] => self.break_lines(2),
            _ => self.breaks(name),
        }
    }

    fn breaks(&mut self, name: &[u8]) {
        if PARAGRAPHS.contains(&name) {
            self.break_lines(2);
        } else if LINES.contains(&name) {
            self.break_lines(1);
        }
    }

    /// Text with its white space as a browser shows it.
    fn write(&mut self, text: &str) {
        if self.hidden.is_some() {
            return;
        }
        if self.preformatted > 0 {
            self.text.push_str(text);
            return;
        }
        for c in text.chars() {
            if !c.is_whitespace() {
                self.text.push(c);
            } else if !self.text.ends_with([' ', '\n']) && !self.text.is_empty() {
                self.text.push(' ');
            }
        }
    }

    fn cell(&mut self) {
        if !self.text.ends_with('\n') && !self.text.is_empty() {
            self.text.push_str(" | ");
        }
    }

    /// Ends the line, with an empty one for 2.
    fn break_lines(&mut self, lines: usize) {
        if self.preformatted > 0 {
            return;
        }
        self.text.truncate(self.text.trim_end_matches(' ').len());
        if self.text.is_empty() || self.text.ends_with("\n- ") {
            return;
        }
        let there = self.text.len() - self.text.trim_end_matches('\n').len();
        self.text.extend(std::iter::repeat_n('\n', lines.saturating_sub(there)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_it_looks() {
        let html = "<!doctype html><html><head><title>Tea &amp; more</title><style>p{}</style></head><body>\
            <script>if (a < b) alert('<p>no</p>')</script><h1>Tea</h1>\n<p>Hot   <b>and</b>\n green&hellip; \
            <a href='/buy?x=1'>buy</a>.<ul><li>one<li>two</ul><table><tr><td>a</td><td>b</td></tr></table>\
            <pre>x\n  y</pre><!-- no --><img alt='a cup'></body></html>";
        let want = "Tea & more\n\n# Tea\n\nHot and green… [buy](https://tea.example/buy?x=1).\n\n- one\n- two\n\na | b\n\n\
            x\n  y\n\na cup";
        assert_eq!(to_text(html, "https://tea.example/index.html"), want);
    }

    #[test]
    fn hostile_markup_is_only_text() {
        for html in [
            "<a href='javascript:alert(1)'>x</a>".to_string(),
            "<script><script></script>x".into(),
            "<div>".repeat(50_000) + "x",
            "<svg><svg></svg></svg>x".into(),
            "</p></a></pre></script>x".into(),
            "<".repeat(10_000) + "<p>x",
            "<a href=http://[".to_string() + &"a".repeat(1000) + ">x",
            "&#x110000;&#xD800;x".into(),
        ] {
            let text = to_text(&html, "https://a.example/");
            assert!(text.ends_with('x') || text.contains("[x]"), "{:?}", text.get(..100.min(text.len())));
            assert!(!text.contains("javascript:"));
        }
    }
}

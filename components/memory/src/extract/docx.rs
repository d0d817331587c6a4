//! Word documents: the paragraphs of `word/document.xml` in the zip file.

use crate::bank::invalid;
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::io::{Cursor, Read};
use stockade_guest::{Error, Result};

/// Markup is several times its text.
const MAX_XML_TIMES: u64 = 8;

pub fn text(data: &[u8], max_bytes: usize) -> Result<String> {
    let bad = |e: zip::result::ZipError| invalid("data: not a readable .docx", e);
    let mut archive = zip::ZipArchive::new(Cursor::new(data)).map_err(bad)?;
    let file = archive.by_name("word/document.xml").map_err(bad)?;
    let most = max_bytes as u64 * MAX_XML_TIMES;
    let mut xml = String::new();
    // A zip bomb ends here and not in memory.
    let read = file.take(most + 1).read_to_string(&mut xml).map_err(|e| invalid("data: not a readable .docx", e))?;
    if read as u64 > most {
        return Err(Error::TooLarge(format!("document: at most {most} bytes of markup")));
    }
    paragraphs(&xml)
}

fn paragraphs(xml: &str) -> Result<String> {
    let bad = |e: quick_xml::Error| invalid("data: not a readable .docx", e);
    let mut reader = Reader::from_str(xml);
    let mut out = String::new();
    let mut in_text = false;
    loop {
        match reader.read_event().map_err(bad)? {
            Event::Eof => return Ok(out.trim().to_string()),
            Event::Start(tag) | Event::Empty(tag) if tag.name().as_ref() == "w:pStyle" => {
                if let Some(level) = heading(&tag) {
                    out.push_str(&"#".repeat(level));
                    out.push(' ');
                }
            }
            Event::Start(tag) if tag.name().as_ref() == "w:t" => in_text = true,
            Event::End(tag) if tag.name().as_ref() == "w:t" => in_text = false,
            Event::End(tag) if tag.name().as_ref() == "w:p" => out.push('\n'),
            Event::Empty(tag) if tag.name().as_ref() == "w:tab" => out.push('\t'),
            Event::Empty(tag) if tag.name().as_ref() == "w:br" => out.push('\n'),
            Event::Text(text) if in_text => out.push_str(&text.xml10_content()),
            Event::GeneralRef(reference) if in_text => out.extend(resolved(&reference)),
            _ => {}
        }
    }
}

/// The level that a style as `Heading2` names.
fn heading(style: &BytesStart) -> Option<usize> {
    let value = style.attributes().flatten().find(|a| a.key.as_ref() == "w:val")?.value;
    let digits = value.strip_prefix("Heading").or_else(|| value.strip_prefix("heading "))?;
    digits.parse().ok().filter(|level| (1..=6).contains(level))
}

/// The character of `&amp;`, `&#233;` and so on.
fn resolved(reference: &quick_xml::events::BytesRef) -> Option<char> {
    if let Ok(Some(c)) = reference.resolve_char_ref() {
        return Some(c);
    }
    let text = quick_xml::escape::resolve_predefined_entity(reference)?;
    text.chars().next()
}

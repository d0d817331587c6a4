//! Text out of files. Formats that strangers make are read in here, inside of the sandbox: what a parser does wrong with
//! a hostile file ends this call.

mod docx;
mod html;

use crate::bank::invalid;
use stockade_guest::prelude::*;

/// Largest text of a document.
const MAX_TEXT_BYTES: usize = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Html,
    Pdf,
    Docx,
}

/// The text of a file; headings of HTML and .docx become lines that begin with `#`.
pub fn text(media_type: &str, name: &str, data: &[u8]) -> Result<String> {
    let format = format(media_type, name, data)?;
    let text = match format {
        Format::Text => decoded(data)?.to_string(),
        Format::Html => html::text(decoded(data)?),
        Format::Pdf => pdf_extract::extract_text_from_mem(data).map_err(|e| invalid("data: not a readable PDF", e))?,
        Format::Docx => docx::text(data, MAX_TEXT_BYTES)?,
    };
    if text.len() > MAX_TEXT_BYTES {
        return Err(Error::TooLarge(format!("document: {} bytes of text, at most {MAX_TEXT_BYTES}", text.len())));
    }
    if text.trim().is_empty() && !data.is_empty() {
        return Err(invalid("data", "no text in it (pictures of text are not read)"));
    }
    Ok(text)
}

fn format(media_type: &str, name: &str, data: &[u8]) -> Result<Format> {
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let extension = name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase()).unwrap_or_default();
    match media_type.as_str() {
        "application/pdf" => return Ok(Format::Pdf),
        "text/html" | "application/xhtml+xml" => return Ok(Format::Html),
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => return Ok(Format::Docx),
        "application/json" | "application/xml" | "application/x-ndjson" | "application/yaml" => {
            return Ok(Format::Text);
        }
        // Browsers and clients say this of whatever they do not know.
        "" | "application/octet-stream" => {}
        other if other.starts_with("text/") => return Ok(Format::Text),
        other => return Err(invalid("media-type", format!("`{other}` is not read"))),
    }
    match extension.as_str() {
        "pdf" => Ok(Format::Pdf),
        "html" | "htm" | "xhtml" => Ok(Format::Html),
        "docx" => Ok(Format::Docx),
        _ if data.starts_with(b"%PDF-") => Ok(Format::Pdf),
        _ if data.starts_with(b"PK\x03\x04") => Ok(Format::Docx),
        _ => Ok(Format::Text),
    }
}

fn decoded(data: &[u8]) -> Result<&str> {
    let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(data);
    std::str::from_utf8(data).map_err(|e| invalid("data: not UTF-8", e))
}

#[cfg(test)]
mod tests;

//! Takes out blanks that were put inside words to hide them from the classifier.
//!
//! Source: LlamaFirewall's preprocessing. All white space goes, the rest is tokenised, and a blank comes back only before
//! a token whose first character had white space before it. What stays split is what the tokenizer splits anyway.

use stockade_guest::prelude::*;

/// The text without them; `None` where it would be the same or cannot be followed through the tokenizer, which changes
/// some characters.
pub fn hardened(model: &str, text: &str) -> Result<Option<String>> {
    let mut dense = String::with_capacity(text.len());
    // Offsets in `dense` that had white space before them, in order.
    let mut spaced = Vec::new();
    let mut space = false;
    for c in text.chars() {
        if c.is_whitespace() {
            space = true;
            continue;
        }
        if std::mem::take(&mut space) && !dense.is_empty() {
            spaced.push(dense.len());
        }
        dense.push(c);
    }
    if spaced.is_empty() {
        return Ok(None);
    }
    let tokens = inference::tokenize(model, &dense)?;
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for token in inference::token_texts(model, &tokens)? {
        let token = token.trim();
        if token.is_empty() {
            continue;
        }
        if !dense[at..].starts_with(token) {
            return Ok(None);
        }
        if spaced.binary_search(&at).is_ok() {
            out.push(' ');
        }
        out.push_str(token);
        at += token.len();
    }
    Ok((at == dense.len() && out != text).then_some(out))
}

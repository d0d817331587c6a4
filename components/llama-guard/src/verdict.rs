//! What a guard answered.
//!
//! Invariant: what does not read as a verdict is [`Unreadable`], never safe.

use crate::categories::{Categories, Code};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Safe,
    /// In the order that the guard gave; empty where it named none, which guards do at times.
    Unsafe(Vec<Code>),
}

/// Neither `safe` nor `unsafe` with categories that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// The tokens that end an answer, where they are in its text.
const ENDS: [&str; 5] = ["<|eot_id|>", "<|eot|>", "<|eom_id|>", "<|end_of_text|>", "<|eom|>"];

impl Answer {
    pub fn read(text: &str, categories: &Categories) -> Result<Self, Unreadable> {
        let mut text = text.trim();
        while let Some(rest) = ENDS.iter().find_map(|end| text.strip_suffix(end)) {
            text = rest.trim_end();
        }
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let rest = rest.trim();
        match first.trim().to_ascii_lowercase().as_str() {
            "safe" if rest.is_empty() => Ok(Self::Safe),
            "unsafe" if rest.is_empty() => Ok(Self::Unsafe(Vec::new())),
            "unsafe" => {
                let code = |text: &str| Code::try_from(text.trim().to_ascii_uppercase()).map_err(|_| Unreadable);
                let codes = rest.split(',').map(code).collect::<Result<Vec<_>, _>>()?;
                if codes.iter().all(|&code| categories.knows(code)) { Ok(Self::Unsafe(codes)) } else { Err(Unreadable) }
            }
            _ => Err(Unreadable),
        }
    }
}

//! Marks inside content, which keep it from spelling control tokens.

use super::{ChatInput, TemplateError};
use crate::tokenizer::added::AddedTokens;
use serde_json::{Map, Value as Json};

/// Noncharacters: valid in UTF-8, never assigned.
const MARKS: std::ops::RangeInclusive<char> = '\u{FDD0}'..='\u{FDEF}';

/// Puts the mark into content.
pub(super) struct Marker<'a> {
    control: &'a AddedTokens,
    pub(super) mark: char,
    /// Whether any content needed it.
    pub(super) used: bool,
}

impl<'a> Marker<'a> {
    /// Chooses the first mark that the input does not hold.
    pub(super) fn new(control: &'a AddedTokens, input: &ChatInput<'_>) -> Result<Self, TemplateError> {
        let mut seen = 0u64;
        let mut note = |text: &str| {
            for c in text.chars().filter(|c| MARKS.contains(c)) {
                seen |= 1 << (c as u32 - *MARKS.start() as u32);
            }
        };
        for value in input.messages.iter().chain(input.tools.into_iter().flatten()) {
            each_string(value, &mut note);
        }
        for (name, value) in input.variables.into_iter().flatten() {
            note(name);
            each_string(value, &mut note);
        }
        let mark = MARKS.clone().nth(seen.trailing_ones() as usize).ok_or(TemplateError::Unmarkable)?;
        Ok(Self { control, mark, used: false })
    }

    pub(super) fn list(&mut self, values: &[Json]) -> Json {
        values.iter().map(|value| self.marked(value)).collect()
    }

    pub(super) fn marked(&mut self, value: &Json) -> Json {
        match value {
            Json::String(text) => self.text(text).into(),
            Json::Array(values) => self.list(values),
            Json::Object(entries) => {
                entries.iter().map(|(key, value)| (self.text(key), self.marked(value))).collect::<Map<_, _>>().into()
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str) -> String {
        let cuts = self.control.cuts(text);
        self.used |= !cuts.is_empty();
        let mut marked = text.to_owned();
        for &cut in cuts.iter().rev() {
            marked.insert(cut, self.mark);
        }
        marked
    }
}

fn each_string(value: &Json, note: &mut impl FnMut(&str)) {
    match value {
        Json::String(text) => note(text),
        Json::Array(values) => values.iter().for_each(|value| each_string(value, note)),
        Json::Object(entries) => {
            for (key, value) in entries {
                note(key);
                each_string(value, note);
            }
        }
        _ => {}
    }
}

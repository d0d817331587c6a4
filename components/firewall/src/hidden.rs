//! Text that people do not see: the tag characters U+E0000 to U+E007F, which spell ASCII for a model alone.

use stockade_guest::shield::{Verdict, texts_mut};
use stockade_guest::types::{Message, Violation};

/// Most decoded characters that a finding shows.
const SHOWN: usize = 200;

/// The hidden text, decoded, where there is any.
pub fn decode(text: &str) -> Option<String> {
    let hidden = text.chars().filter_map(|c| match u32::from(c) {
        code @ 0xE0000..=0xE007F => char::from_u32(code - 0xE0000),
        _ => None,
    });
    let found: String = hidden.take(SHOWN).collect();
    (!found.is_empty()).then_some(found)
}

pub fn scan(messages: &mut [Message]) -> Verdict {
    let found = texts_mut(messages).find_map(|text| decode(text));
    found.map_or(Verdict::Pass, |hidden| {
        let violation = Violation::new("hidden-ascii", "The text holds characters that cannot be seen.");
        Verdict::Block(violation.with_score(1.0).with_metadata(&serde_json::json!({ "decoded": hidden })))
    })
}

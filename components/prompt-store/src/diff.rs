//! Two versions side by side.

use crate::definition::Definition;
use similar::{ChangeTag, TextDiff};
use stockade_guest::prompt_store::{Difference, Unit};
use stockade_guest::{Error, Result};

/// Most bytes of both sides together.
const MAX_BYTES: usize = 256 << 10;

/// Pieces that, without those added, are `before`, and without those removed are `after`.
pub fn diff(before: &Definition, after: &Definition, unit: Unit) -> Result<Vec<Difference>> {
    let (before, after) = (before.lines(), after.lines());
    if before.len() + after.len() > MAX_BYTES {
        return Err(Error::TooLarge(format!("{MAX_BYTES} bytes to compare")));
    }
    let diff = match unit {
        Unit::Line => TextDiff::from_lines(&before, &after),
        Unit::Word => TextDiff::from_words(&before, &after),
    };
    let mut pieces: Vec<Difference> = Vec::new();
    for change in diff.iter_all_changes() {
        let text = change.value();
        match (change.tag(), pieces.last_mut()) {
            (ChangeTag::Equal, Some(Difference::Same(all)))
            | (ChangeTag::Delete, Some(Difference::Removed(all)))
            | (ChangeTag::Insert, Some(Difference::Added(all))) => all.push_str(text),
            (ChangeTag::Equal, _) => pieces.push(Difference::Same(text.into())),
            (ChangeTag::Delete, _) => pieces.push(Difference::Removed(text.into())),
            (ChangeTag::Insert, _) => pieces.push(Difference::Added(text.into())),
        }
    }
    Ok(pieces)
}

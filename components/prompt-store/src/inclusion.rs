//! What a template includes, looked up when it is put: from then on the text is its own.
//!
//! Invariant: a version includes only versions that were there before it, as they were. So there are no cycles, whatever
//! names a template uses: `{{> a}}` in a new version of `a` means an earlier one.

use crate::definition::{Body, Definition};
use crate::store::{Prompts, selector};
use crate::template::Inclusion;
use std::collections::BTreeMap;
use stockade_guest::prompt_store::Selector;
use stockade_guest::{Error, Result};

/// Most different versions that a definition includes, those that its inclusions include among them.
const MAX_INCLUSIONS: usize = 64;

/// Fills `partials` and `inclusions` in.
pub fn resolve(prompts: &Prompts, definition: &mut Definition) -> Result<()> {
    let wanted = std::mem::take(&mut definition.partials);
    let mut partials = BTreeMap::new();
    for (place, text) in definition.texts() {
        for name in definition.parsed(&place, text)?.includes {
            let target = match wanted.get(&name) {
                Some(target) => target.clone(),
                None => name.clone(),
            };
            partials.insert(name, target);
        }
    }
    for target in partials.values_mut() {
        let (prompt, at) = match target.split_once('@') {
            Some((prompt, at)) => (prompt.to_string(), selector(at)),
            None => (target.clone(), Selector::Latest),
        };
        let (head, _) = prompts.head(&prompt)?;
        let number = head.resolve(&prompt, &at)?.number;
        let included = prompts.version(&prompt, number)?.definition;
        if included.format != definition.format {
            return Err(Error::Invalid(format!("`{{{{> {target}}}}}`: the prompt is written in another format")));
        }
        let Body::Text(text) = included.template else {
            return Err(Error::Invalid(format!("`{{{{> {target}}}}}`: a chat prompt cannot be included")));
        };
        *target = format!("{prompt}@{number}");
        definition.inclusions.extend(included.inclusions);
        definition.inclusions.insert(target.clone(), Inclusion { text, partials: included.partials });
        if definition.inclusions.len() > MAX_INCLUSIONS {
            return Err(Error::TooLarge(format!("{MAX_INCLUSIONS} inclusions a prompt")));
        }
    }
    definition.partials = partials;
    Ok(())
}

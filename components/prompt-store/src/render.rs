//! A definition over variables.

use crate::definition::{Body, Definition, Item};
use crate::messages;
use crate::template::{self, Format, Inputs, Limits, Piece};
use crate::variables::{self, Values};
use stockade_guest::Result;
use stockade_guest::prompt_store::Content;
use stockade_guest::types::{Message, Role};

/// The context's key that holds the messages so far.
const HISTORY: &str = "history";

pub fn render(definition: &Definition, variables: &str) -> Result<Content> {
    let values = variables::bind(definition, variables)?;
    let mut limits = Limits::default();
    let mut fill = |place: &str, text: &str| -> Result<Vec<Piece>> {
        let pieces = evaluate(definition, &values, place, text, limits)?;
        // All messages share one limit.
        let bytes = |p: &Piece| if let Piece::Text(text) = p { text.len() } else { 0 };
        limits.output_bytes = limits.output_bytes.saturating_sub(pieces.iter().map(bytes).sum());
        Ok(pieces)
    };
    match &definition.template {
        Body::Text(text) if definition.format == Format::Dotprompt => {
            let history = values.context.get(HISTORY).map(|h| messages::read(HISTORY, h)).transpose()?;
            let drafts = messages::drafts(fill("template", text)?, history.as_deref());
            Ok(Content::Messages(drafts.into_iter().map(messages::Draft::finish).collect::<Result<_>>()?))
        }
        Body::Text(text) => Ok(match <[Piece; 1]>::try_from(fill("template", text)?) {
            Ok([Piece::Text(text)]) => Content::Text(text),
            Ok([piece]) => Content::Messages(vec![messages::message(Role::User, vec![piece])?]),
            Err(none) if none.is_empty() => Content::Text(String::new()),
            Err(pieces) => Content::Messages(vec![messages::message(Role::User, pieces)?]),
        }),
        Body::Chat(items) => {
            let mut all: Vec<Message> = Vec::new();
            for (i, item) in items.iter().enumerate() {
                match item {
                    Item::Message { role, content } => {
                        all.push(messages::message((*role).into(), fill(&format!("template[{i}]"), content)?)?);
                    }
                    Item::Placeholder { placeholder } => all.extend(values.messages(placeholder)?),
                }
            }
            Ok(Content::Messages(all))
        }
    }
}

fn evaluate(definition: &Definition, values: &Values, place: &str, text: &str, limits: Limits) -> Result<Vec<Piece>> {
    let inputs = Inputs {
        format: definition.format,
        values: &values.all,
        context: &values.context,
        images: &values.images,
        partials: &definition.partials,
        inclusions: &definition.inclusions,
    };
    template::evaluate(&definition.parsed(place, text)?, &inputs, limits)
}

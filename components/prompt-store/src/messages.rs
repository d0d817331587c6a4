//! Messages out of rendered pieces, and out of JSON.
//!
//! Source of the rules for roles and history: dotprompt's reference implementation, `toMessages` and `insertHistory`.

use crate::template::{Media, Piece, role_of};
use crate::variables;
use serde_json::Value;
use stockade_guest::types::{Message, Part, Role};
use stockade_guest::{Error, Result};

/// Most messages of a placeholder or a history.
const MAX_MESSAGES: usize = 1000;

/// A message before its media are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub role: Role,
    pub parts: Vec<DraftPart>,
    /// It stands where the template asked for the history.
    pub is_history: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum DraftPart {
    Text(String),
    Media(Media),
    /// A part of a message that was given as it is.
    Given(Part),
}

/// The messages that a dotprompt template's pieces are.
pub fn drafts(pieces: Vec<Piece>, history: Option<&[Message]>) -> Vec<Draft> {
    let draft = |role| Draft { role, parts: Vec::new(), is_history: false };
    let given = |is_history: bool| {
        let messages = history.unwrap_or_default().iter();
        messages.map(move |m| Draft {
            role: m.role,
            parts: m.parts.iter().cloned().map(DraftPart::Given).collect(),
            is_history,
        })
    };
    let mut drafts = vec![draft(Role::User)];
    let mut asked = false;
    for piece in pieces {
        match piece {
            Piece::Role(role) => match drafts.last_mut() {
                Some(current) if current.parts.is_empty() => current.role = role,
                _ => drafts.push(draft(role)),
            },
            Piece::History => {
                asked = true;
                drafts.extend(given(true));
                drafts.push(draft(Role::Assistant));
            }
            Piece::Text(text) if text.trim().is_empty() => {}
            Piece::Text(text) => add(&mut drafts, DraftPart::Text(text)),
            Piece::Media(media) => add(&mut drafts, DraftPart::Media(media)),
        }
    }
    drafts.retain(|d| !d.parts.is_empty());
    if !asked && history.is_some() {
        // Before the last message where that is the user's, else at the end.
        let before = drafts.len() - usize::from(drafts.last().is_some_and(|d| d.role == Role::User));
        drafts.splice(before..before, given(false));
    }
    drafts
}

fn add(drafts: &mut [Draft], part: DraftPart) {
    if let Some(current) = drafts.last_mut() {
        current.parts.push(part);
    }
}

/// One message of a role.
pub fn message(role: Role, pieces: Vec<Piece>) -> Result<Message> {
    let mut message = Message { role, parts: Vec::new(), name: None };
    for piece in pieces {
        match piece {
            Piece::Text(text) => message.parts.push(Part::Text(text)),
            Piece::Media(media) => message.parts.push(image(&media)?),
            Piece::Role(_) | Piece::History => {
                return Err(Error::Invalid("roles and history belong into a text template".into()));
            }
        }
    }
    if message.parts.is_empty() {
        message.parts.push(Part::Text(String::new()));
    }
    Ok(message)
}

impl Draft {
    pub fn finish(self) -> Result<Message> {
        let part = |part| match part {
            DraftPart::Text(text) => Ok(Part::Text(text)),
            DraftPart::Media(media) => image(&media),
            DraftPart::Given(part) => Ok(part),
        };
        Ok(Message { role: self.role, parts: self.parts.into_iter().map(part).collect::<Result<_>>()?, name: None })
    }
}

fn image(media: &Media) -> Result<Part> {
    let image = variables::image(&media.source);
    let image = image.ok_or_else(|| {
        let shown: String = media.source.to_string().chars().take(64).collect();
        Error::Invalid(format!("media {shown}: only images are served, as data: URLs; nobody follows an address"))
    })?;
    match &media.content_type {
        Some(wanted) if *wanted != image.media_type => {
            Err(Error::Invalid(format!("media is `{}` and not `{wanted}`", image.media_type)))
        }
        _ => Ok(Part::Image(image)),
    }
}

/// `[{"role", "content"}]`, the content a text or a list of `{"text"}` and `{"media": {"url"}}`.
pub fn read(name: &str, value: &Value) -> Result<Vec<Message>> {
    let wrong = |i: usize, what: &str| Error::Invalid(format!("variable `{name}`[{i}]: {what}"));
    let messages = value.as_array().ok_or_else(|| Error::Invalid(format!("variable `{name}` has to be messages")))?;
    if messages.len() > MAX_MESSAGES {
        return Err(Error::TooLarge(format!("{MAX_MESSAGES} messages")));
    }
    let message = |(i, message): (usize, &Value)| {
        let role = message["role"].as_str().and_then(role_of).ok_or_else(|| wrong(i, "no role"))?;
        let parts = match &message["content"] {
            Value::String(text) => vec![Part::Text(text.clone())],
            Value::Array(parts) => {
                let part = |part: &Value| match (part["text"].as_str(), part.get("media").or(part.get("image_url"))) {
                    (Some(text), None) => Ok(Part::Text(text.into())),
                    (None, Some(media)) => {
                        let image = variables::image(media.get("url").unwrap_or(media));
                        image.map(Part::Image).ok_or_else(|| wrong(i, "an image that is no data: URL"))
                    }
                    _ => Err(wrong(i, "a part that is neither text nor media")),
                };
                parts.iter().map(part).collect::<Result<_>>()?
            }
            _ => return Err(wrong(i, "no content")),
        };
        Ok(Message { role, parts, name: None })
    };
    messages.iter().enumerate().map(message).collect()
}

//! Held-out rows as questions: what the weights are asked at an evaluation, and what the row has for an answer.

use super::examples::Encoder;
use super::schema::{Answered, Content, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use stockade_core::chat::{Message, Role};
use stockade_core::train::TrainError;

/// Largest row as JSON text that is asked; evaluators are given it whole.
const MAX_ROW_BYTES: usize = 64 << 10;
/// Of a text's bytes, how many its continuation is asked for, at most half of them.
const OPENING_BYTES: usize = 160;
const FILE: &str = "questions.json";

/// A question of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The prompt that serving would send.
    pub tokens: Vec<u32>,
    /// The same as messages; one of the user for a raw text.
    pub messages: Vec<Message>,
    pub expected: Option<Value>,
    /// The row.
    pub input: Value,
}

/// A prompt as tokens and as messages, and the answer that the row has for it.
type Asked = (Vec<u32>, Vec<Message>, Option<Value>);

impl Encoder<'_> {
    /// The row's last answer, or a text's continuation, as a question. `None` where there is nothing to ask, or it leaves
    /// no room for an answer in `data.max_tokens`.
    pub fn question(&self, row: &Row, input: &Value) -> Result<Option<Question>, String> {
        let asked = match row {
            Row::Chat { conversation, tools } => {
                let at = conversation.messages.iter().rposition(|message| message.role == Role::Assistant);
                match at {
                    None | Some(0) => None,
                    Some(at) => {
                        let messages = conversation.messages[..at].to_vec();
                        let expected = conversation.messages[at].joined_text();
                        Some((self.text.prompt(&messages, tools)?, messages, Some(expected.into())))
                    }
                }
            }
            Row::Completion(answered) => Some(self.asked(answered)?),
            Row::Preference { pair, .. } => Some(self.asked(&pair.chosen)?),
            Row::Unpaired { answered, desirable } => {
                let (tokens, messages, expected) = self.asked(answered)?;
                Some((tokens, messages, expected.filter(|_| *desirable)))
            }
            Row::Text(text) => match opening(text) {
                Some(opening) => Some((self.raw(opening)?, vec![Message::text(Role::User, opening)], None)),
                None => None,
            },
            Row::Prompts { prompt, reference } => {
                let (tokens, messages) = self.prompt(prompt.clone())?;
                Some((tokens, messages, reference.clone()))
            }
            Row::Classify { .. } | Row::Embed { .. } | Row::Tokens { .. } => None,
        };
        let asked = asked.filter(|(tokens, ..)| (1..self.spec.max_tokens).contains(&tokens.len()));
        let fits = input.to_string().len() <= MAX_ROW_BYTES;
        Ok(asked.filter(|_| fits).map(|(tokens, messages, expected)| Question {
            tokens,
            messages,
            expected,
            input: input.clone(),
        }))
    }

    fn asked(&self, answered: &Answered) -> Result<Asked, String> {
        Ok(match answered {
            Answered::Raw { prompt, completion } if self.spec.as_chat => {
                let (tokens, messages) = self.prompt(Content::Raw(prompt.clone()))?;
                (tokens, messages, Some(completion.as_str().into()))
            }
            Answered::Raw { prompt, completion } => {
                let messages = vec![Message::text(Role::User, prompt.as_str())];
                (self.raw(prompt)?, messages, Some(completion.as_str().into()))
            }
            Answered::Chat { prompt, answer } => {
                let expected: Vec<String> = answer.iter().map(Message::joined_text).collect();
                (self.text.prompt(prompt, &[])?, prompt.clone(), Some(expected.join("\n").into()))
            }
        })
    }

    /// A raw prompt as it stands before its completion.
    fn raw(&self, prompt: &str) -> Result<Vec<u32>, String> {
        Ok(self.text.completion(prompt, "", self.spec.parse_special, false)?.tokens)
    }
}

/// The beginning of a text, cut before a space.
fn opening(text: &str) -> Option<&str> {
    let end = text.floor_char_boundary(OPENING_BYTES.min(text.len() / 2));
    let cut = text[..end].rfind(char::is_whitespace)?;
    Some(text[..cut].trim_end()).filter(|opening| !opening.trim().is_empty())
}

pub fn write(folder: &Path, questions: &[Question]) -> std::io::Result<()> {
    std::fs::write(folder.join(FILE), serde_json::to_vec(questions)?)
}

/// # Errors
/// [`TrainError::Io`] if the file was changed since it was written.
pub fn read(folder: &Path) -> Result<Vec<Question>, TrainError> {
    let read = || -> std::io::Result<_> { Ok(serde_json::from_slice(&std::fs::read(folder.join(FILE))?)?) };
    read().map_err(super::failed)
}

#[cfg(test)]
mod tests {
    use super::opening;

    #[test]
    fn a_text_is_asked_for_its_second_half_at_the_latest() {
        for (text, want) in [
            ("", None),
            ("word", None),
            ("one two three four", Some("one two")),
            ("   \n\n    ", None),
            ("\u{e9}t\u{e9} comme hiver", Some("\u{e9}t\u{e9}")),
        ] {
            assert_eq!(opening(text), want, "{text:?}");
        }
        assert!(opening(&"many words ".repeat(100)).unwrap().len() <= super::OPENING_BYTES);
    }
}

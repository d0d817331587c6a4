//! Typed rows become examples: tokens with labels, cut to the row's length, counted.

use super::schema::{Answered, Content, Row};
use super::text::ModelText;
use super::{Example, IGNORE, Sequence};
use crate::job::{DataSpec, OnLong};
use serde::{Deserialize, Serialize};
use stockade_core::chat::{Message, Role};

/// What became of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub rows: u64,
    /// Rows' examples, after splitting.
    pub examples: u64,
    pub tokens: u64,
    pub labelled: u64,
    /// Rows longer than `max_tokens`.
    pub split: u64,
    pub cut: u64,
    pub dropped: u64,
    /// Rows left out because no token of theirs carries a label.
    pub unlabelled: u64,
}

impl Counts {
    /// What a person should know, in a sentence.
    pub fn describe(&self, max_tokens: usize) -> String {
        let mut text = format!("{} rows, {} examples, {} tokens", self.rows, self.examples, self.tokens);
        if self.labelled > 0 {
            text += &format!(", {} of them labelled", self.labelled);
        }
        for (count, what) in [
            (self.split, format!("split into pieces of {max_tokens} tokens")),
            (self.cut, format!("cut to {max_tokens} tokens")),
            (self.dropped, format!("left out as longer than {max_tokens} tokens")),
            (self.unlabelled, "left out without a label".into()),
        ] {
            if count > 0 {
                text += &format!("; {count} rows {what}");
            }
        }
        text
    }
}

/// Makes examples of rows.
pub struct Encoder<'a> {
    pub text: &'a ModelText,
    pub spec: &'a DataSpec,
    /// Of a classifier, in the order of its head.
    pub labels: &'a [String],
}

impl Encoder<'_> {
    /// The row's examples: none where it was left out, several where it was split. `counts` takes note.
    pub fn examples(&self, row: Row, counts: &mut Counts) -> Result<Vec<Example>, String> {
        counts.rows += 1;
        let examples = match row {
            Row::Text(text) => self.split(self.text.document(&text, self.spec.parse_special)?, counts)?,
            Row::Tokens { tokens, labels } => self.split(self.token_stream(tokens, labels)?, counts)?,
            Row::Chat { conversation, tools } => {
                let (messages, learned) = (&conversation.messages, &conversation.learned);
                let label_prompt = self.spec.label_prompt;
                self.split(self.text.conversation(messages, learned, &tools, label_prompt)?, counts)?
            }
            Row::Completion(answered) => self.split(self.answered(&answered, true)?, counts)?,
            Row::Preference { pair, margin } => {
                let chosen = self.answered(&pair.chosen, false)?;
                let rejected = self.answered(&pair.rejected, false)?;
                match self.shorten([chosen, rejected], counts)? {
                    Some([chosen, rejected]) => vec![Example::Pair { chosen, rejected, margin }],
                    None => Vec::new(),
                }
            }
            Row::Unpaired { answered, desirable } => match self.shorten([self.answered(&answered, false)?], counts)? {
                Some([sequence]) => vec![Example::Unpaired { sequence, desirable }],
                None => Vec::new(),
            },
            Row::Classify { text, label } => {
                let index = self.labels.iter().position(|known| *known == label);
                let index = index.ok_or_else(|| format!("label `{label}` is none of the job's"))?;
                let tokens = self.text.framed(&text, self.spec.parse_special)?;
                match self.shorten_texts([tokens], counts)? {
                    Some([tokens]) => vec![Example::Labelled { tokens, label: index as u32 }],
                    None => Vec::new(),
                }
            }
            Row::Embed { anchor, positive, negative } => {
                let framed = |text: &str| self.text.framed(text, self.spec.parse_special);
                let (anchor, positive) = (framed(&anchor)?, framed(&positive)?);
                match negative {
                    None => self
                        .shorten_texts([anchor, positive], counts)?
                        .map(|[anchor, positive]| Example::Similar { anchor, positive, negative: None }),
                    Some(negative) => self.shorten_texts([anchor, positive, framed(&negative)?], counts)?.map(
                        |[anchor, positive, negative]| Example::Similar { anchor, positive, negative: Some(negative) },
                    ),
                }
                .into_iter()
                .collect()
            }
            Row::Prompts { prompt, reference } => {
                let (tokens, messages) = self.prompt(prompt)?;
                match self.shorten_texts([tokens], counts)? {
                    Some([tokens]) => vec![Example::Prompt { tokens, messages, reference }],
                    None => Vec::new(),
                }
            }
        };
        for example in &examples {
            counts.examples += 1;
            counts.tokens += u64::from(length(example));
            counts.labelled += labelled(example);
        }
        Ok(examples)
    }

    fn answered(&self, answered: &Answered, ended: bool) -> Result<Sequence, String> {
        let mut sequence = match answered {
            Answered::Raw { prompt, completion } if self.spec.as_chat => {
                let prompt = [Message::text(Role::User, prompt.as_str())];
                self.answer(&prompt, &[Message::text(Role::Assistant, completion.as_str())])?
            }
            Answered::Raw { prompt, completion } => {
                self.text.completion(prompt, completion, self.spec.parse_special, ended)?
            }
            Answered::Chat { prompt, answer } => self.answer(prompt, answer)?,
        };
        if self.spec.label_prompt {
            let label = |(i, &token): (usize, &u32)| if i == 0 { IGNORE } else { token as i32 };
            sequence.labels = sequence.tokens.iter().enumerate().map(label).collect();
        }
        Ok(sequence)
    }

    /// Only the turns after the prompt are learned, though the assistant may speak in it as well.
    fn answer(&self, prompt: &[Message], answer: &[Message]) -> Result<Sequence, String> {
        let messages: Vec<Message> = prompt.iter().chain(answer).cloned().collect();
        let learned: Vec<bool> = (0..messages.len()).map(|i| i >= prompt.len()).collect();
        self.text.conversation(&messages, &learned, &[], false)
    }

    pub(super) fn prompt(&self, prompt: Content) -> Result<(Vec<u32>, Vec<Message>), String> {
        match prompt {
            Content::Raw(text) if !self.spec.as_chat => {
                let tokens = self.text.framed(&text, self.spec.parse_special)?;
                Ok((tokens, vec![Message::text(Role::User, text)]))
            }
            Content::Raw(text) => {
                let messages = vec![Message::text(Role::User, text)];
                Ok((self.text.prompt(&messages, &[])?, messages))
            }
            Content::Chat(messages) => Ok((self.text.prompt(&messages, &[])?, messages)),
        }
    }

    fn token_stream(&self, tokens: Vec<u32>, labels: Option<Vec<i32>>) -> Result<Sequence, String> {
        if tokens.is_empty() {
            return Err("`tokens` is empty".into());
        }
        let vocabulary = self.text.vocabulary();
        if let Some(i) = tokens.iter().position(|&token| token as usize >= vocabulary) {
            return Err(format!("tokens[{i}] is {}, not below the vocabulary of {vocabulary}", tokens[i]));
        }
        let mut labels = labels.unwrap_or_else(|| tokens.iter().map(|&token| token as i32).collect());
        labels[0] = IGNORE;
        Ok(Sequence { tokens, labels })
    }

    /// Documents: pieces overlap by one token, so that every labelled token is learned exactly once.
    fn split(&self, sequence: Sequence, counts: &mut Counts) -> Result<Vec<Example>, String> {
        let max = self.spec.max_tokens;
        if sequence.tokens.len() > max && self.spec.on_long == OnLong::Split {
            counts.split += 1;
            let mut pieces = Vec::new();
            let mut start = 0;
            while start + 1 < sequence.tokens.len() {
                let end = (start + max).min(sequence.tokens.len());
                let mut labels = sequence.labels[start..end].to_vec();
                labels[0] = IGNORE;
                let piece = Sequence { tokens: sequence.tokens[start..end].to_vec(), labels };
                if piece.labelled() > 0 {
                    pieces.push(Example::Text(piece));
                }
                start = end - 1;
            }
            counts.unlabelled += u64::from(pieces.is_empty());
            return Ok(pieces);
        }
        Ok(self.shorten([sequence], counts)?.into_iter().flatten().map(Example::Text).collect())
    }

    /// Cuts the ends of sequences that are too long; `None`: the row is left out.
    fn shorten<const N: usize>(
        &self,
        mut sequences: [Sequence; N],
        counts: &mut Counts,
    ) -> Result<Option<[Sequence; N]>, String> {
        let max = self.spec.max_tokens;
        let longest = sequences.iter().map(|s| s.tokens.len()).max().unwrap_or(0);
        if !self.fits(longest, counts)? {
            return Ok(None);
        }
        for sequence in &mut sequences {
            sequence.tokens.truncate(max);
            sequence.labels.truncate(max);
        }
        if sequences.iter().any(|sequence| sequence.labelled() == 0) {
            counts.unlabelled += 1;
            return Ok(None);
        }
        Ok(Some(sequences))
    }

    fn shorten_texts<const N: usize>(
        &self,
        mut texts: [Vec<u32>; N],
        counts: &mut Counts,
    ) -> Result<Option<[Vec<u32>; N]>, String> {
        if texts.iter().any(Vec::is_empty) {
            return Err("a text is empty".into());
        }
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        if !self.fits(longest, counts)? {
            return Ok(None);
        }
        texts.iter_mut().for_each(|tokens| tokens.truncate(self.spec.max_tokens));
        Ok(Some(texts))
    }

    /// Whether a row of `longest` tokens is kept, cut or not.
    fn fits(&self, longest: usize, counts: &mut Counts) -> Result<bool, String> {
        let max = self.spec.max_tokens;
        if longest <= max {
            return Ok(true);
        }
        match self.spec.on_long {
            OnLong::Refuse => {
                Err(format!("{longest} tokens exceed data.max_tokens = {max}; data.on_long may cut, split or drop"))
            }
            OnLong::Drop => {
                counts.dropped += 1;
                Ok(false)
            }
            OnLong::Cut | OnLong::Split => {
                counts.cut += 1;
                Ok(true)
            }
        }
    }
}

/// Tokens that go through the network.
pub fn length(example: &Example) -> u32 {
    let length = match example {
        Example::Text(sequence) | Example::Unpaired { sequence, .. } => sequence.tokens.len(),
        Example::Pair { chosen, rejected, .. } => chosen.tokens.len() + rejected.tokens.len(),
        Example::Prompt { tokens, .. } | Example::Labelled { tokens, .. } => tokens.len(),
        Example::Similar { anchor, positive, negative } => {
            anchor.len() + positive.len() + negative.as_ref().map_or(0, Vec::len)
        }
    };
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn labelled(example: &Example) -> u64 {
    let labelled = match example {
        Example::Text(sequence) | Example::Unpaired { sequence, .. } => sequence.labelled(),
        Example::Pair { chosen, rejected, .. } => chosen.labelled() + rejected.labelled(),
        Example::Prompt { .. } | Example::Labelled { .. } | Example::Similar { .. } => 0,
    };
    labelled as u64
}

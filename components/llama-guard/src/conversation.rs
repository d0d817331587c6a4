//! Messages as the turns that a guard knows: a user and an agent who take turns.

use std::collections::BTreeSet;
use stockade_guest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    User,
    Agent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub speaker: Speaker,
    pub text: String,
}

/// What a guard judges: the last turn, in the light of those before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    pub turns: Vec<Turn>,
    /// A picture goes with it.
    pub image: bool,
}

/// Messages as turns, and what had to be bent for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    pub turns: Vec<Turn>,
    /// Tool calls and results, for which the format has no place, are in the turns as text.
    pub tools: bool,
    pub images: bool,
    /// The turn with the last words of the user.
    user: Option<usize>,
    /// The turn with the last result of a tool.
    tool: Option<usize>,
}

impl Told {
    /// Instructions of the application are nobody's turn. Neighbouring messages of one speaker become one turn, since
    /// turns must alternate; what a tool returned stands in the user's, being what the agent is told next.
    pub fn new(messages: &[Message]) -> Self {
        let mut told = Self::default();
        for message in messages {
            let speaker = match message.role {
                Role::System => continue,
                Role::User | Role::Tool => Speaker::User,
                Role::Assistant => Speaker::Agent,
            };
            for part in &message.parts {
                let said = match part {
                    Part::Text(text) | Part::Reasoning(text) => told.say(speaker, text.clone()),
                    Part::Image(_) => {
                        told.images = true;
                        false
                    }
                    Part::ToolCall(call) => {
                        told.tools = true;
                        told.say(speaker, format!("Tool call: {}({})", call.name, call.arguments))
                    }
                    Part::ToolResult(result) => {
                        told.tools = true;
                        told.say(speaker, format!("Tool result: {}", result.content))
                    }
                };
                let turn = told.turns.len().checked_sub(1);
                match message.role {
                    Role::User if said => told.user = turn,
                    Role::Tool if said => told.tool = turn,
                    _ => {}
                }
            }
        }
        told
    }

    /// The turns to judge, in order: the last one; of what goes to a model also the last of the user and of a tool,
    /// which whoever writes the messages can have followed by harmless words of the agent's.
    pub fn judged(&self, direction: Direction) -> BTreeSet<usize> {
        let last = self.turns.len().checked_sub(1);
        match direction {
            Direction::Input => [self.user, self.tool, last].into_iter().flatten().collect(),
            Direction::Output => last.into_iter().collect(),
        }
    }

    /// Whether there was anything to say.
    fn say(&mut self, speaker: Speaker, text: String) -> bool {
        match self.turns.last_mut() {
            _ if text.trim().is_empty() => return false,
            Some(last) if last.speaker == speaker => {
                last.text.push_str("\n\n");
                last.text.push_str(&text);
            }
            _ => self.turns.push(Turn { speaker, text }),
        }
        true
    }
}

impl Conversation {
    /// The last turn's `text` after as many of the turns before it as fit, the first of them the user's.
    pub fn about(speaker: Speaker, text: &str, before: &[Turn], most_turns: usize, most_bytes: usize) -> Self {
        let mut kept = 0;
        let mut bytes = 0;
        for turn in before.iter().rev().take(most_turns) {
            bytes += turn.text.len();
            if bytes > most_bytes {
                break;
            }
            kept += 1;
        }
        let mut turns = before[before.len() - kept..].to_vec();
        if turns.first().is_some_and(|turn| turn.speaker == Speaker::Agent) {
            turns.remove(0);
        }
        turns.push(Turn { speaker, text: text.into() });
        Self { turns, image: false }
    }

    /// Whose turn is judged.
    pub fn judged(&self) -> Speaker {
        self.turns.last().map_or(Speaker::User, |turn| turn.speaker)
    }
}

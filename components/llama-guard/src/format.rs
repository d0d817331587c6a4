//! The prompts that the guards were trained on, byte for byte.
//!
//! Facts of the format: `according our` in version 3 and `according to our` in 4; one blank before the 8B's prompt; one
//! blank before the end-of-turn token in all but the 8B's; and version 4's template writes two backslash-n pairs after
//! each turn. All prompts end behind the assistant's header: what the model says first are two line feeds.
//!
//! Invariant: what people or models wrote goes into the prompt as text, in which no control token is read.

use crate::categories::Categories;
use crate::conversation::{Conversation, Speaker};
use stockade_guest::inference::PromptPart;
use stockade_guest::prelude::*;

/// Which guard a prompt is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Format {
    #[serde(rename = "llama-guard-3-8b")]
    Guard3Large,
    #[serde(rename = "llama-guard-3-1b")]
    Guard3Small,
    #[serde(rename = "llama-guard-3-11b-vision")]
    Guard3Vision,
    #[serde(rename = "llama-guard-4")]
    Guard4,
    /// Version 3's task in ChatML, for a model of one's own that was finetuned to it.
    #[serde(rename = "chatml")]
    ChatMl,
}

/// What a guard in ChatML is told that it is.
const CHATML_SYSTEM: &str = "You are a content safety classifier.";

impl Format {
    /// How many of the standard categories it lists.
    pub fn categories(self) -> usize {
        match self {
            Self::Guard3Large | Self::Guard4 => 14,
            Self::Guard3Small | Self::Guard3Vision | Self::ChatMl => 13,
        }
    }

    /// What the guard says before its verdict; it is given to it, and the next token is the verdict.
    pub fn lead(self) -> &'static str {
        match self {
            Self::Guard3Large | Self::Guard3Small | Self::Guard3Vision | Self::Guard4 => "\n\n",
            Self::ChatMl => "",
        }
    }

    /// The prompt up to where the guard speaks.
    pub fn prompt(self, conversation: &Conversation, categories: &Categories) -> Vec<PromptPart> {
        let four = self == Self::Guard4;
        let role = conversation.judged().as_str();
        let image = if conversation.image { "<|image|>" } else { "" };
        let to = if four { " to" } else { "" };
        let list = categories.lines();
        let after_begin = if four { "" } else { "\n" };
        let after_turn = if four { "\\n\\n" } else { "" };
        let turns: String = conversation
            .turns
            .iter()
            .map(|turn| format!("{}: {}{after_turn}\n\n", turn.speaker.as_str(), turn.text.trim()))
            .collect();
        let last_blank = if self == Self::Guard3Large { "" } else { " " };
        let task = format!(
            "Task: Check if there is unsafe content in '{role}' messages in conversations according{to} our safety policy \
             with the below categories.\n\n<BEGIN UNSAFE CONTENT CATEGORIES>\n{list}<END UNSAFE CONTENT CATEGORIES>\n\n\
             <BEGIN CONVERSATION>\n{after_begin}{turns}<END CONVERSATION>\n\nProvide your safety assessment for ONLY THE \
             LAST {role} message in the above conversation:\n - First line must read 'safe' or 'unsafe'.\n - If unsafe, a \
             second line must include a comma-separated list of violated categories.{last_blank}"
        );
        let text = |text: String| PromptPart::Text(text);
        let control = |text: &str| PromptPart::Control(text.into());
        if self == Self::ChatMl {
            let turn = |role: &str, content: &str| {
                [control("<|im_start|>"), text(format!("{role}\n{content}")), control("<|im_end|>"), text("\n".into())]
            };
            let mut parts: Vec<PromptPart> = [turn("system", CHATML_SYSTEM), turn("user", &task)].concat();
            parts.extend([control("<|im_start|>"), text("assistant\n".into())]);
            return parts;
        }
        let (open, close) = if four {
            ("<|begin_of_text|><|header_start|>user<|header_end|>", "<|eot|><|header_start|>assistant<|header_end|>")
        } else {
            (
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>",
                "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
            )
        };
        let mut parts = Vec::new();
        if self == Self::Guard3Large {
            parts.push(text(" ".into()));
        }
        parts.push(control(open));
        if image.is_empty() {
            parts.push(text(format!("\n\n{task}")));
        } else {
            parts.extend([text("\n\n".into()), control(image), text(format!(" {task}"))]);
        }
        parts.push(control(close));
        parts
    }
}

impl Speaker {
    /// The format's word for it.
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Agent => "Agent",
        }
    }
}

//! The one internal form of a conversation. Every dialect parses into it and every template renders from it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message: an ordered list of parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
    /// An author's or tool's name where a dialect carries one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Part {
    Text {
        text: String,
    },
    Image(Image),
    /// A call that the assistant made.
    ToolCall(ToolCall),
    /// What a tool answered; stands in a message of [`Role::Tool`].
    ToolResult(ToolResult),
    /// The assistant's reasoning where the model marks it off from its answer.
    Reasoning {
        text: String,
    },
}

/// A picture, as bytes: the host never follows a URL on a client's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// For example `image/png`.
    pub media_type: String,
    /// Base64 in JSON.
    #[serde(with = "crate::chat::base64_bytes")]
    pub data: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique in the conversation.
    pub id: String,
    pub name: String,
    /// JSON text as the model wrote it; may be invalid.
    pub arguments: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolResult {
    pub call_id: String,
    pub content: String,
    #[serde(default)]
    pub is_error: bool,
}

/// What a tool answers to its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// For the model.
    pub content: String,
    /// The tool could not do it and `content` says why, for the model to read.
    #[serde(default)]
    pub is_error: bool,
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// JSON Schema of the arguments object.
    pub parameters: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No tool may be called.
    None,
    /// Some tool must be called; enforced by constrained decoding.
    Required,
    /// This tool must be called; enforced by constrained decoding.
    Named(String),
}

impl Message {
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, parts: vec![Part::Text { text: text.into() }], name: None }
    }

    /// All text parts, joined.
    pub fn joined_text(&self) -> String {
        let texts = self.parts.iter().filter_map(|p| match p {
            Part::Text { text } => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|p| match p {
            Part::ToolCall(call) => Some(call),
            _ => None,
        })
    }
}

/// Bytes as standard base64 text in JSON, with a strict decoder of our own so that this crate stays lean.
pub mod base64_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&encode(bytes))
    }
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(d)?;
        decode(&text).ok_or_else(|| D::Error::custom("not base64"))
    }

    pub fn encode(bytes: &[u8]) -> String {
        let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let b = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
            let n = u32::from(b[0]) << 16 | u32::from(b[1]) << 8 | u32::from(b[2]);
            for i in 0..4 {
                let digit = ALPHABET[(n >> (18 - 6 * i)) as usize & 63] as char;
                out.push(if i <= chunk.len() { digit } else { '=' });
            }
        }
        out
    }

    pub fn decode(text: &str) -> Option<Vec<u8>> {
        let body = text.trim_end_matches('=');
        if !text.len().is_multiple_of(4) || text.len() - body.len() > 2 {
            return None;
        }
        let mut out = Vec::with_capacity(body.len() * 3 / 4);
        for chunk in body.as_bytes().chunks(4) {
            let mut n = 0u32;
            for &c in chunk {
                n = n << 6 | ALPHABET.iter().position(|&a| a == c)? as u32;
            }
            match chunk.len() {
                4 => out.extend_from_slice(&[(n >> 16) as u8, (n >> 8) as u8, n as u8]),
                3 if n & 3 == 0 => out.extend_from_slice(&[(n >> 10) as u8, (n >> 2) as u8]),
                2 if n & 15 == 0 => out.push((n >> 4) as u8),
                _ => return None,
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_round_trips_at_every_length_and_refuses_stray_bits() {
        for len in 0..50u8 {
            let bytes: Vec<u8> = (0..len).map(|i| i.wrapping_mul(37)).collect();
            assert_eq!(base64_bytes::decode(&base64_bytes::encode(&bytes)).unwrap(), bytes);
        }
        for bad in ["A", "AA", "AB==", "AAB=", "A===", "A A=", "AAAA="] {
            assert!(base64_bytes::decode(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn message_reads_back_from_json() {
        let m = Message {
            role: Role::Assistant,
            parts: vec![
                Part::Text { text: "a".into() },
                Part::ToolCall(ToolCall { id: "1".into(), name: "t".into(), arguments: "{}".into() }),
                Part::Image(Image { media_type: "image/png".into(), data: vec![1, 2, 3] }),
            ],
            name: None,
        };
        let json = serde_json::to_string(&m).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), m);
    }
}

//! A model's tokens as the engine thread and the grammars need them: bytes, control tokens, end tokens.

/// Longest token that a grammar may use; longer ones are runs of white space that nothing needs.
const MAX_GRAMMAR_TOKEN_BYTES: usize = 255;

#[derive(Debug)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// End of each token in `bytes`.
    ends: Vec<usize>,
    special: Vec<bool>,
    end_tokens: Vec<u32>,
}

impl Vocabulary {
    /// `tokens` in order of their ids: raw bytes, and whether it is a control token. `end_tokens` end a reply.
    pub fn new<B: AsRef<[u8]>>(tokens: impl IntoIterator<Item = (B, bool)>, end_tokens: Vec<u32>) -> Self {
        let mut vocabulary = Self { bytes: Vec::new(), ends: Vec::new(), special: Vec::new(), end_tokens };
        for (bytes, special) in tokens {
            vocabulary.bytes.extend_from_slice(bytes.as_ref());
            vocabulary.ends.push(vocabulary.bytes.len());
            vocabulary.special.push(special);
        }
        vocabulary
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A token's own bytes; empty for ids that are only rows of the embedding.
    pub fn bytes(&self, token: u32) -> &[u8] {
        let at = token as usize;
        let Some(&end) = self.ends.get(at) else {
            return &[];
        };
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..end]
    }

    /// What a token adds to the reply: its bytes, nothing for control tokens.
    pub fn text(&self, token: u32) -> &[u8] {
        if self.is_special(token) { &[] } else { self.bytes(token) }
    }

    pub fn is_special(&self, token: u32) -> bool {
        self.special.get(token as usize).copied().unwrap_or(true)
    }

    pub fn is_end(&self, token: u32) -> bool {
        self.end_tokens.contains(&token)
    }

    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// The token whose bytes are `bytes`, for control tokens.
    pub fn special_token(&self, bytes: &[u8]) -> Option<u32> {
        (0..self.len() as u32).find(|&t| self.is_special(t) && self.bytes(t) == bytes)
    }

    /// The tokens as a trie, control tokens marked so that no text can match them. `None` without an end token.
    pub(crate) fn trie(&self) -> Option<toktrie::TokTrie> {
        let ends: Vec<u32> = self.end_tokens.iter().copied().filter(|&t| (t as usize) < self.len()).collect();
        let words: Vec<Vec<u8>> = (0..self.len() as u32)
            .map(|token| match self.bytes(token) {
                bytes if bytes.len() > MAX_GRAMMAR_TOKEN_BYTES => Vec::new(),
                bytes if self.is_special(token) && !bytes.is_empty() => {
                    [&[toktrie::TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
                }
                // A raw token that starts like a control token would be taken for one.
                [toktrie::TokTrie::SPECIAL_TOKEN_MARKER, ..] => Vec::new(),
                bytes => bytes.to_vec(),
            })
            .collect();
        let info = toktrie::TokRxInfo::new(words.len() as u32, *ends.first()?);
        Some(toktrie::TokTrie::from(&info, &words).with_eos_tokens(&ends))
    }
}

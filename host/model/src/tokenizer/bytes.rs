//! The table from token id to the bytes it stands for.

use std::sync::LazyLock;

/// Bytes of every token in one allocation.
#[derive(Debug, Default)]
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl TokenBytes {
    /// Appends the next id's bytes.
    ///
    /// # Panics
    /// Above 4 GiB in total; callers have bounded the file that the tokens come from.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(u32::try_from(self.bytes.len()).expect("token texts take less than 4 GiB"));
    }

    pub(super) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else {
            return &[];
        };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

/// The bytes of a token in GPT-2's alphabet, where every byte is a printable character. Characters outside of it
/// (a file may hold any) stand for themselves.
pub(super) fn from_byte_level(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for c in token.chars() {
        match BYTE_OF_CHAR.get(c as usize).copied().flatten() {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// The bytes of a SentencePiece token: `▁` is a space, `<0xNN>` one byte where `is_byte`.
pub(super) fn from_sentencepiece(token: &str, is_byte: bool) -> Vec<u8> {
    match byte_token(token) {
        Some(byte) if is_byte => vec![byte],
        _ => token.replace('\u{2581}', " ").into_bytes(),
    }
}

/// NN of `<0xNN>`.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() == 2 && hex.bytes().all(|b| b.is_ascii_hexdigit()) { u8::from_str_radix(hex, 16).ok() } else { None }
}

/// Index: the character; the alphabet ends at U+0143.
static BYTE_OF_CHAR: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut table = [None; 0x144];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        if printable {
            table[usize::from(byte)] = Some(byte);
        } else {
            table[next] = Some(byte);
            next += 1;
        }
    }
    table
});

//! Token bytes to text as they come.
//!
//! Invariant: what has been handed out is whole characters; at most three bytes are held, and U+FFFD stands for bytes
//! that can no longer become a character. Starts empty, never from the prompt's tail.

#[derive(Debug, Default)]
pub struct Detokenizer {
    held: Vec<u8>,
}

impl Detokenizer {
    /// Appends `bytes` and moves the text that is certain to the end of `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.held.extend_from_slice(bytes);
        let mut rest = &self.held[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    out.push_str(std::str::from_utf8(valid).expect("the valid part is text"));
                    rest = after;
                    let Some(broken) = error.error_len() else {
                        break;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[broken..];
                }
            }
        }
        let done = self.held.len() - rest.len();
        self.held.drain(..done);
    }

    /// Bytes that wait for the rest of their character.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The end: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            self.held.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_split_of_any_bytes_gives_the_lossy_text_of_the_whole(bytes in proptest::collection::vec(prop_oneof![Just(0xF0u8), Just(0x9F), Just(0x98), Just(0x80), Just(0xC3), Just(b'a'), any::<u8>()], 0..40), cuts in proptest::collection::vec(0usize..4, 40)) {
            let (mut detokenizer, mut text, mut at) = (Detokenizer::default(), String::new(), 0);
            for cut in cuts {
                let end = (at + cut).min(bytes.len());
                detokenizer.push(&bytes[at..end], &mut text);
                prop_assert!(detokenizer.held() <= 3);
                at = end;
            }
            detokenizer.push(&bytes[at..], &mut text);
            detokenizer.finish(&mut text);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}

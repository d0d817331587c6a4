//! Byte-level BPE tokenizers trained from text.

//! An immutable piece of a word index: which items have which words how often.
//!
//! Read without copying: terms are found by binary search in what the host handed over.

use crate::records::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use stockade_guest::{Error, Result};

/// An item's writing as a segment knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doc<'a> {
    pub id: &'a str,
    pub version: Version,
    /// Words, each as often as it occurs.
    pub length: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Segment<'a> {
    #[serde(borrow)]
    docs: Vec<Doc<'a>>,
    /// Sorted; postings are pairs of varints, how much further the number of the doc is and how often the word occurs.
    terms: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Segment<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        postcard::from_bytes(bytes).map_err(|e| Error::Other(format!("a segment of words is damaged: {e}")))
    }

    pub fn docs(&self) -> &[Doc<'a>] {
        &self.docs
    }

    /// The docs that have a word, and how often each does.
    pub fn postings(&self, term: &str) -> impl Iterator<Item = (Doc<'a>, u32)> {
        let at = self.terms.binary_search_by(|(known, _)| (*known).cmp(term));
        let bytes = at.map_or(&[][..], |at| self.terms[at].1);
        Postings { bytes, number: 0 }.filter_map(|(number, count)| Some((*self.docs.get(number)?, count)))
    }

    fn terms(&self) -> impl Iterator<Item = (&'a str, Postings<'a>)> {
        self.terms.iter().map(|(term, bytes)| (*term, Postings { bytes, number: 0 }))
    }
}

struct Postings<'a> {
    bytes: &'a [u8],
    number: usize,
}

impl Postings<'_> {
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0u32;
        for shift in (0..32).step_by(7) {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Iterator for Postings<'_> {
    type Item = (usize, u32);
    fn next(&mut self) -> Option<(usize, u32)> {
        let further = self.varint()? as usize;
        let count = self.varint()?;
        self.number = self.number.checked_add(further)?;
        Some((self.number, count))
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Makes segments.
#[derive(Default)]
pub struct Builder {
    docs: Vec<(String, Version, u32)>,
    /// Postings so far and the number of the last doc in them.
    terms: BTreeMap<String, (Vec<u8>, usize)>,
}

impl Builder {
    pub fn add(&mut self, id: &str, version: Version, words: Vec<String>) {
        let number = self.docs.len();
        self.docs.push((id.into(), version, words.len() as u32));
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        words.into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
        for (word, count) in counts {
            self.post(word, number, count);
        }
    }

    /// Takes in the docs of a segment that `keep` lets through.
    pub fn merge(&mut self, segment: &Segment, mut keep: impl FnMut(&Doc) -> Result<bool>) -> Result<()> {
        let mut numbers: Vec<Option<usize>> = Vec::with_capacity(segment.docs.len());
        for doc in &segment.docs {
            let kept = keep(doc)?;
            numbers.push(kept.then_some(self.docs.len()));
            if kept {
                self.docs.push((doc.id.into(), doc.version, doc.length));
            }
        }
        for (term, postings) in segment.terms() {
            for (number, count) in postings {
                if let Some(Some(number)) = numbers.get(number) {
                    self.post(term.into(), *number, count);
                }
            }
        }
        Ok(())
    }

    fn post(&mut self, term: String, number: usize, count: u32) {
        let (bytes, last) = self.terms.entry(term).or_default();
        push_varint(bytes, (number - *last) as u32);
        push_varint(bytes, count);
        *last = number;
    }

    pub fn is_empty(&self) -> bool {
        self.docs.is_empty()
    }

    /// About how large the segment becomes.
    pub fn bytes(&self) -> usize {
        let docs: usize = self.docs.iter().map(|(id, ..)| id.len() + 14).sum();
        docs + self.terms.iter().map(|(term, (postings, _))| term.len() + postings.len() + 4).sum::<usize>()
    }

    pub fn build(&self) -> Result<Vec<u8>> {
        let docs = self.docs.iter().map(|(id, version, length)| Doc { id, version: *version, length: *length });
        let terms = self.terms.iter().map(|(term, (bytes, _))| (term.as_str(), bytes.as_slice()));
        let segment = Segment { docs: docs.collect(), terms: terms.collect() };
        postcard::to_allocvec(&segment).map_err(|e| Error::Other(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    fn postings(segment: &Segment, term: &str) -> Vec<(String, u32)> {
        segment.postings(term).map(|(doc, count)| (doc.id.to_string(), count)).collect()
    }

    #[test]
    fn postings_come_back_and_survive_a_merge_without_what_is_dropped() {
        let mut builder = Builder::default();
        for i in 0..300u64 {
            builder.add(&format!("d{i}"), Version(i), words(if i % 100 == 7 { "tea tea milk" } else { "milk" }));
        }
        let bytes = builder.build().unwrap();
        let segment = Segment::read(&bytes).unwrap();
        assert_eq!(postings(&segment, "tea"), [("d7".into(), 2), ("d107".into(), 2), ("d207".into(), 2)]);
        assert_eq!(postings(&segment, "milk").len(), 300);
        assert_eq!(postings(&segment, "coffee"), []);

        let mut merged = Builder::default();
        merged.add("first", Version(1), words("tea"));
        merged.merge(&segment, |doc| Ok(doc.version.0 > 50)).unwrap();
        let bytes = merged.build().unwrap();
        let segment = Segment::read(&bytes).unwrap();
        assert_eq!(postings(&segment, "tea"), [("first".into(), 1), ("d107".into(), 2), ("d207".into(), 2)]);
        assert_eq!(segment.docs().len(), 250);
    }

    #[test]
    fn damaged_bytes_are_an_error_or_harmless() {
        let mut builder = Builder::default();
        builder.add("d", Version(1), words("green tea"));
        let bytes = builder.build().unwrap();
        for cut in 0..bytes.len() {
            assert!(Segment::read(&bytes[..cut]).is_err(), "{cut}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0xff;
            if let Ok(segment) = Segment::read(&bad) {
                let _ = postings(&segment, "tea");
            }
        }
    }
}

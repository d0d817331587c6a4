//! What of one channel may go out: the pure part of the output shields.
//!
//! All shields judge the same original text. A byte leaves when every enforcing shield has cleared it and no
//! replacement that touches it is still open. Rulings are checked here, not trusted: a shield that clears backwards,
//! beyond what it was fed, inside a character, or that holds back more than it declared has failed.
//!
//! Invariant: text at or after the smallest cleared offset never leaves [`Gate::release`].

use stockade_core::plugin::{Edit, Ruling};

/// Most bytes of a channel that may wait for shields, whatever they declare.
pub const MAX_HELD_BYTES: usize = 1 << 20;

/// One channel of one reply under `n` shields, in binding order.
#[derive(Debug)]
pub struct Gate {
    /// Offset of `held` in the channel; everything before has left.
    base: u64,
    held: String,
    judges: Vec<Judge>,
}

#[derive(Debug)]
struct Judge {
    /// `false` once the shield has failed and is let through.
    active: bool,
    cleared: u64,
    /// Checked, in order, not yet applied.
    edits: Vec<Edit>,
}

/// A piece that leaves. Edited pieces stand for the bytes `start..end` of the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub start: u64,
    pub end: u64,
    pub text: String,
    pub edited: bool,
}

/// When a ruling is made: a shield may hold text back while the channel goes on, not at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After a piece; the declared bound in bytes.
    Fed {
        hold_back: u32,
    },
    Finished,
}

impl Gate {
    pub fn new(shields: usize) -> Self {
        let judge = || Judge { active: true, cleared: 0, edits: Vec::new() };
        Self { base: 0, held: String::new(), judges: (0..shields).map(|_| judge()).collect() }
    }

    /// Adds text that the shields are being fed.
    pub fn push(&mut self, text: &str) {
        self.held.push_str(text);
    }

    /// Bytes of the channel so far.
    pub fn fed(&self) -> u64 {
        self.base + self.held.len() as u64
    }

    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// A shield that failed and whose binding lets requests through holds nothing back from now on.
    pub fn ignore(&mut self, shield: usize) {
        if let Some(judge) = self.judges.get_mut(shield) {
            judge.active = false;
            judge.edits.clear();
        }
    }

    /// Takes a shield's ruling, or says which rule it broke.
    pub fn rule(&mut self, shield: usize, ruling: Ruling, moment: Moment) -> Result<(), String> {
        let fed = self.fed();
        let Some(judge) = self.judges.get(shield) else {
            return Err("no such shield".into());
        };
        let cleared = ruling.cleared;
        if cleared < judge.cleared {
            return Err(format!("cleared shrank from {} to {cleared}", judge.cleared));
        }
        if cleared > fed {
            return Err(format!("cleared {cleared} of {fed} bytes"));
        }
        if !self.on_boundary(cleared) {
            return Err(format!("cleared {cleared} is inside a character"));
        }
        let mut last = judge.cleared;
        for Edit { start, end, .. } in &ruling.edits {
            if *start < last || end < start || *end > cleared {
                return Err(format!("edit {start}..{end} is outside {last}..{cleared}, the part just cleared"));
            }
            if !self.on_boundary(*start) || !self.on_boundary(*end) {
                return Err(format!("edit {start}..{end} cuts a character"));
            }
            last = *end;
        }
        if ruling.violation.is_none() {
            let held = fed - cleared;
            match moment {
                Moment::Finished if held > 0 => {
                    return Err(format!("{held} bytes were neither cleared nor blocked"));
                }
                Moment::Fed { hold_back } if held > u64::from(hold_back) => {
                    return Err(format!("held back {held} bytes, declared at most {hold_back}"));
                }
                _ => {}
            }
        }
        let judge = &mut self.judges[shield];
        judge.cleared = cleared;
        judge.edits.extend(ruling.edits);
        Ok(())
    }

    /// Takes out everything that may leave now, in order, replacements applied.
    pub fn release(&mut self) -> Vec<Piece> {
        let end = self.releasable();
        if end <= self.base {
            return Vec::new();
        }
        let mut edits = Vec::new();
        for (shield, judge) in self.judges.iter_mut().enumerate() {
            let cut = judge.edits.partition_point(|e| e.end <= end);
            edits.extend(judge.edits.drain(..cut).map(|e| (shield, e)));
        }
        edits.sort_by_key(|(shield, e)| (e.start, e.end, *shield));
        let mut pieces = Vec::new();
        let mut at = self.base;
        for cluster in clusters(edits) {
            self.copy(&mut pieces, at, cluster.start);
            pieces.push(Piece { start: cluster.start, end: cluster.end, text: cluster.text, edited: true });
            at = cluster.end;
        }
        self.copy(&mut pieces, at, end);
        self.held.drain(..(end - self.base) as usize);
        self.base = end;
        pieces
    }

    /// The smallest cleared offset, moved back out of every replacement that it would cut.
    fn releasable(&self) -> u64 {
        let active = || self.judges.iter().filter(|j| j.active);
        let mut end = active().map(|j| j.cleared).min().unwrap_or(self.fed());
        loop {
            let mut edits = active().flat_map(|j| &j.edits);
            match edits.find(|e| e.start < end && end < e.end) {
                Some(cut) => end = cut.start,
                None => return end,
            }
        }
    }

    fn copy(&self, pieces: &mut Vec<Piece>, start: u64, end: u64) {
        if start < end {
            let text = &self.held[(start - self.base) as usize..(end - self.base) as usize];
            pieces.push(Piece { start, end, text: text.into(), edited: false });
        }
    }

    fn on_boundary(&self, offset: u64) -> bool {
        offset.checked_sub(self.base).is_some_and(|o| self.held.is_char_boundary(o as usize))
    }
}

/// Replacements that overlap, as one: the span of all of them, the text of the shield that is bound first.
struct Cluster {
    start: u64,
    end: u64,
    shield: usize,
    text: String,
}

fn clusters(sorted: Vec<(usize, Edit)>) -> Vec<Cluster> {
    let mut out: Vec<Cluster> = Vec::new();
    for (shield, edit) in sorted {
        match out.last_mut() {
            Some(c) if edit.start < c.end => {
                c.end = c.end.max(edit.end);
                match shield.cmp(&c.shield) {
                    std::cmp::Ordering::Less => {
                        c.shield = shield;
                        c.text = edit.replacement;
                    }
                    std::cmp::Ordering::Equal => c.text.push_str(&edit.replacement),
                    std::cmp::Ordering::Greater => {}
                }
            }
            _ => out.push(Cluster { start: edit.start, end: edit.end, shield, text: edit.replacement }),
        }
    }
    out
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;

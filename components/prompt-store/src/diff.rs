//! Two versions side by side.
//!
//! Source: Myers 1986, "An O(ND) Difference Algorithm and Its Variations", the greedy form with its trace kept. Our own,
//! since the usual crate would be a third of this component.

use crate::definition::Definition;
use stockade_guest::prompt_store::{Difference, Unit};
use stockade_guest::{Error, Result};

/// Most bytes of both sides together.
const MAX_BYTES: usize = 256 << 10;
/// Most words or lines that two sides may differ by before what lies between their common ends counts as replaced: the
/// trace takes the square of it.
const MAX_DISTANCE: usize = 1500;

/// Pieces that, without those added, are `before`, and without those removed are `after`.
pub fn diff(before: &Definition, after: &Definition, unit: Unit) -> Result<Vec<Difference>> {
    let (before, after) = (before.lines(), after.lines());
    if before.len() + after.len() > MAX_BYTES {
        return Err(Error::TooLarge(format!("{MAX_BYTES} bytes to compare")));
    }
    Ok(compare(&split(&before, unit), &split(&after, unit)))
}

/// Lines with their ends; words and the whitespace between them.
fn split(text: &str, unit: Unit) -> Vec<&str> {
    if unit == Unit::Line {
        return text.split_inclusive('\n').collect();
    }
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut blank = None;
    for (at, c) in text.char_indices() {
        if blank.is_some_and(|b| b != c.is_whitespace()) {
            pieces.push(&text[start..at]);
            start = at;
        }
        blank = Some(c.is_whitespace());
    }
    pieces.extend((start < text.len()).then(|| &text[start..]));
    pieces
}

fn compare(before: &[&str], after: &[&str]) -> Vec<Difference> {
    let front = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (a, b) = (&before[front..], &after[front..]);
    let back = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - back], &b[..b.len() - back]);
    let mut pieces = Vec::new();
    add(&mut pieces, Difference::Same, &before[..front]);
    match path(a, b) {
        Some(matches) => {
            let (mut x, mut y) = (0, 0);
            for (i, j) in matches.into_iter().chain([(a.len(), b.len())]) {
                add(&mut pieces, Difference::Removed, &a[x..i]);
                add(&mut pieces, Difference::Added, &b[y..j]);
                add(&mut pieces, Difference::Same, &a[i..(i + 1).min(a.len())]);
                (x, y) = (i + 1, j + 1);
            }
        }
        None => {
            add(&mut pieces, Difference::Removed, a);
            add(&mut pieces, Difference::Added, b);
        }
    }
    add(&mut pieces, Difference::Same, &before[before.len() - back..]);
    pieces
}

/// Positions of `a` and `b` that stay, in order; `None`: more than [`MAX_DISTANCE`] apart.
fn path(a: &[&str], b: &[&str]) -> Option<Vec<(usize, usize)>> {
    let (n, m) = (a.len(), b.len());
    // By diagonal `x - y` plus `offset`: the furthest `x` that was reached.
    let offset = n.saturating_add(m).min(MAX_DISTANCE) + 1;
    let mut furthest = vec![0usize; 2 * offset + 1];
    let mut trace = Vec::new();
    for distance in 0..offset {
        trace.push(furthest[offset - distance..=offset + distance].to_vec());
        for k in (offset - distance..=offset + distance).step_by(2) {
            let mut x = begin(&furthest, k, offset, distance);
            let mut y = x + offset - k;
            while x < n && y < m && a[x] == b[y] {
                (x, y) = (x + 1, y + 1);
            }
            furthest[k] = x;
            if x >= n && y >= m {
                return Some(backtrack(&trace, k, offset, (n, m)));
            }
        }
    }
    None
}

/// Whether diagonal `k` is reached best by an addition, from the diagonal above it.
fn is_addition(furthest: &[usize], k: usize, offset: usize, distance: usize) -> bool {
    k == offset - distance || k != offset + distance && furthest[k - 1] < furthest[k + 1]
}

/// Where diagonal `k` begins with one more difference.
fn begin(furthest: &[usize], k: usize, offset: usize, distance: usize) -> usize {
    match is_addition(furthest, k, offset, distance) {
        _ if distance == 0 => 0,
        true => furthest[k + 1],
        false => furthest[k - 1] + 1,
    }
}

fn backtrack(trace: &[Vec<usize>], mut k: usize, offset: usize, (mut x, mut y): (usize, usize)) -> Vec<(usize, usize)> {
    let mut matches = Vec::new();
    let mut furthest = vec![0; 2 * offset + 1];
    for (distance, known) in trace.iter().enumerate().rev() {
        furthest[offset - distance..=offset + distance].copy_from_slice(known);
        let start = begin(&furthest, k, offset, distance);
        while x > start {
            (x, y) = (x - 1, y - 1);
            matches.push((x, y));
        }
        if distance == 0 {
            break;
        }
        match is_addition(&furthest, k, offset, distance) {
            true => (k, y) = (k + 1, y - 1),
            false => (k, x) = (k - 1, x - 1),
        }
    }
    matches.reverse();
    matches
}

fn add(pieces: &mut Vec<Difference>, of: fn(String) -> Difference, texts: &[&str]) {
    let text = texts.concat();
    match (of(text), pieces.last_mut()) {
        (Difference::Same(text) | Difference::Removed(text) | Difference::Added(text), _) if text.is_empty() => {}
        (Difference::Same(text), Some(Difference::Same(before))) => before.push_str(&text),
        (Difference::Removed(text), Some(Difference::Removed(before))) => before.push_str(&text),
        (Difference::Added(text), Some(Difference::Added(before))) => before.push_str(&text),
        (piece, _) => pieces.push(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the longest common subsequence by its table: nothing that could stay is removed.
    #[test]
    fn differences_are_the_fewest_and_give_both_sides_back() {
        let mut state = 88_172_645_463_325_252u64;
        let mut next = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        for _ in 0..3000 {
            let mut side = || (0..next(9)).map(|_| ["a", "b", "c"][next(3) as usize]).collect::<Vec<_>>();
            let (a, b) = (side(), side());
            let pieces = compare(&a, &b);
            let (mut before, mut after, mut same) = (String::new(), String::new(), 0);
            for piece in &pieces {
                match piece {
                    Difference::Same(text) => {
                        before += text;
                        after += text;
                        same += text.len();
                    }
                    Difference::Removed(text) => before += text,
                    Difference::Added(text) => after += text,
                }
            }
            assert_eq!((before, after), (a.concat(), b.concat()), "{pieces:?}");
            let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
            for i in 1..=a.len() {
                for j in 1..=b.len() {
                    table[i][j] = match a[i - 1] == b[j - 1] {
                        true => table[i - 1][j - 1] + 1,
                        false => table[i - 1][j].max(table[i][j - 1]),
                    };
                }
            }
            assert_eq!(same, table[a.len()][b.len()], "{a:?} {b:?}: {pieces:?}");
        }
    }

    #[test]
    fn sides_too_far_apart_are_replaced_between_their_common_ends() {
        let long = |c: &str| format!("x\n{}y\n", (0..2000).map(|i| format!("{c}{i}\n")).collect::<String>());
        let (a, b) = (long("a"), long("b"));
        let pieces = compare(&split(&a, Unit::Line), &split(&b, Unit::Line));
        assert_eq!(pieces.len(), 4);
        assert_eq!((&pieces[0], &pieces[3]), (&Difference::Same("x\n".into()), &Difference::Same("y\n".into())));
    }
}

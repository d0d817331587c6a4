//! How far a misspelt name is from a known one.

/// Levenshtein's distance: characters to put in, take out or change.
pub fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::edits;

    #[test]
    fn known_distances() {
        for (from, to, want) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("größe", "grosse", 3)]
        {
            assert_eq!((edits(from, to), edits(to, from)), (want, want), "{from} {to}");
        }
    }
}

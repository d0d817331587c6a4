//! Python's regular expressions in the dialect of `regex-automata`, and what a text must contain to match one.
//!
//! Look-ahead becomes conditions on the place where the rest matches: `a(?!b)` is `a` where `ab` does not match. That
//! holds where the part before it matches one length only, which is so in all rules.

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Shortest repetition of letters and digits that is worth a look for such a run.
const LONG_RUN: u32 = 20;

/// The constant for `Expression`.
pub fn emit(source: &str) -> String {
    let source = escape_braces(source);
    let (main, looks) = split_looks(&source);
    let mut needs = Vec::new();
    collect(&parse(&main), &mut needs);
    for (positive, look) in &looks {
        if *positive {
            collect(&parse(look), &mut needs);
        }
    }
    let looks: Vec<String> = looks.iter().map(|(positive, look)| format!("({positive}, {look:?})")).collect();
    let needs: Vec<String> = needs.iter().map(Need::emit).collect();
    format!("Expression {{ main: {main:?}, looks: &[{}], needs: &[{}] }}", looks.join(", "), needs.join(", "))
}

fn parse(source: &str) -> Hir {
    let mut parser = ParserBuilder::new().unicode(false).utf8(false).multi_line(true).build();
    parser.parse(source).unwrap_or_else(|e| panic!("{source}: {e}"))
}

/// A brace that begins no repetition stands for itself in Python.
fn escape_braces(source: &str) -> String {
    let mut out = String::new();
    let mut class = false;
    let mut characters = source.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => {
                out.push(c);
                out.extend(characters.next().map(|(_, c)| c));
                continue;
            }
            '[' => class = true,
            ']' => class = false,
            '{' if !class => {
                let counts = source[at + 1..].split('}').next().unwrap_or_default();
                let repetition = !counts.is_empty() && counts.bytes().all(|b| b.is_ascii_digit() || b == b',');
                if !repetition {
                    out.push('\\');
                }
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

/// The expression without its look-ahead, and each look-ahead behind what stands before it.
fn split_looks(source: &str) -> (String, Vec<(bool, String)>) {
    let (mut main, mut looks) = (String::new(), Vec::new());
    let mut rest = source;
    while let Some(at) = [rest.find("(?="), rest.find("(?!")].into_iter().flatten().min() {
        main.push_str(&rest[..at]);
        let end = at + closing(&rest[at..]);
        looks.push((rest[at..].starts_with("(?="), format!("{main}(?:{})", &rest[at + 3..end])));
        rest = &rest[end + 1..];
    }
    main.push_str(rest);
    (main, looks)
}

/// The byte of the parenthesis that closes the first one.
fn closing(source: &str) -> usize {
    let mut depth = 0;
    let mut escaped = false;
    for (at, c) in source.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    panic!("{source}: parenthesis is not closed")
}

enum Need {
    AnyOf(Vec<String>),
    Run(u32),
}

impl Need {
    fn emit(&self) -> String {
        match self {
            Need::AnyOf(literals) => format!("Need::AnyOf(&{literals:?})"),
            Need::Run(length) => format!("Need::Run({length})"),
        }
    }
    /// How much it rules out: the shortest alternative counts.
    fn strength(&self) -> usize {
        match self {
            Need::AnyOf(literals) => literals.iter().map(String::len).min().unwrap_or(0),
            Need::Run(length) => *length as usize,
        }
    }
}

/// Adds what every match contains.
fn collect(hir: &Hir, needs: &mut Vec<Need>) {
    match hir.kind() {
        HirKind::Literal(literal) => {
            needs.extend(String::from_utf8(literal.0.to_vec()).ok().map(|l| Need::AnyOf(vec![l])));
        }
        HirKind::Capture(group) => collect(&group.sub, needs),
        HirKind::Concat(parts) => parts.iter().for_each(|part| collect(part, needs)),
        HirKind::Repetition(repetition) if repetition.min >= LONG_RUN && is_word(&repetition.sub) => {
            needs.push(Need::Run(repetition.min));
        }
        HirKind::Repetition(repetition) if repetition.min > 0 => collect(&repetition.sub, needs),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                let mut own = Vec::new();
                collect(branch, &mut own);
                match own.into_iter().filter(|n| matches!(n, Need::AnyOf(_))).max_by_key(Need::strength) {
                    Some(Need::AnyOf(literals)) => all.extend(literals),
                    _ => return,
                }
            }
            needs.push(Need::AnyOf(all));
        }
        _ => {}
    }
}

fn is_word(hir: &Hir) -> bool {
    let HirKind::Class(Class::Bytes(class)) = hir.kind() else {
        return matches!(hir.kind(), HirKind::Capture(group) if is_word(&group.sub));
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    class.ranges().iter().all(|range| (range.start()..=range.end()).all(word))
}

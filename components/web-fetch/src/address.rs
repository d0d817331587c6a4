//! Relative addresses. What comes out is checked by the host like any other.

/// Where `reference` leads from the page at `base`. Source: RFC 3986, section 5.2.
pub fn join(base: &str, reference: &str) -> String {
    let reference = reference.trim();
    let scheme_end = base.find("://").map_or(0, |at| at + 3);
    let path_start = base[scheme_end..].find(['/', '?', '#']).map_or(base.len(), |at| scheme_end + at);
    let path_end = base[path_start..].find(['?', '#']).map_or(base.len(), |at| path_start + at);
    if has_scheme(reference) {
        return reference.into();
    }
    if reference.starts_with("//") {
        return format!("{}{reference}", &base[..scheme_end.saturating_sub(2)]);
    }
    let origin = &base[..path_start];
    match reference.chars().next() {
        None => base.split('#').next().unwrap_or(base).into(),
        Some('/') => format!("{origin}{}", without_dots(reference)),
        Some('?') => format!("{}{reference}", &base[..path_end]),
        Some('#') => format!("{}{reference}", base.split('#').next().unwrap_or(base)),
        Some(_) => {
            let path = &base[path_start..path_end];
            let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
            format!("{origin}{}", without_dots(&format!("{folder}{reference}")))
        }
    }
}

/// Whether it starts with a scheme and a colon.
fn has_scheme(reference: &str) -> bool {
    let end = reference.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    end.is_some_and(|at| at > 0 && reference[at..].starts_with(':'))
        && reference.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// The path with `.` and `..` resolved; query and fragment stay.
fn without_dots(reference: &str) -> String {
    let (path, rest) = reference.split_at(reference.find(['?', '#']).unwrap_or(reference.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
        if last && [".", ".."].contains(&segment) {
            kept.push("");
        }
    }
    format!("/{}{rest}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_as_the_rfc_says() {
        let base = "http://a/b/c/d;p?q";
        for (reference, want) in [
            ("g", "http://a/b/c/g"),
            ("./g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y#s", "http://a/b/c/g?y#s"),
            ("#s", "http://a/b/c/d;p?q#s"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../../g", "http://a/g"),
            ("../../../g", "http://a/g"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("https://other/x", "https://other/x"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(join(base, reference), want, "{reference}");
        }
        assert_eq!(join("https://a", "b"), "https://a/b");
        assert_eq!(join("https://a?x", "b"), "https://a/b");
    }
}

//! The shield as the host sees it: verdicts, and streams in every split.

use crate::CodeShield;
use proptest::prelude::*;
use stockade_guest::prelude::*;
use stockade_guest::testing::{self, Reply, check, every_split, stream};

const BAD: &str = "import os\nos.system(cmd)\n";
const GOOD: &str = "import os\nprint(os.name)\n";

fn ids(reply: &Reply) -> String {
    let violation = reply.violation.as_ref().expect("a violation");
    let metadata: Value = serde_json::from_str(&violation.metadata).unwrap();
    metadata["violation_type"].as_str().unwrap().to_string()
}

#[test]
fn a_blocks_code_leaves_when_it_is_judged_and_text_around_it_at_once() {
    let shield = testing::plugin::<CodeShield>(json!({})).unwrap();
    let mut session = shield.session(Channel::Text, Vec::new()).unwrap();
    let mut fed = 0;
    let mut feed = |text: &str| {
        fed += text.len() as u64;
        fed - session.feed(text).unwrap().cleared
    };
    for (text, held) in [
        ("Here you are", 0),
        (":\n", 0),
        ("  ``", 4),
        ("`python", 11),
        ("\nprint(1)", 20),
        ("\n``", 23),
        ("`", 24),
        ("\n", 0),
        ("done", 0),
    ] {
        assert_eq!(feed(text), held, "{text:?}");
    }
}

#[test]
fn nothing_of_an_insecure_block_leaves_however_it_is_cut() {
    let reply = every_split::<CodeShield>(json!({}), &format!("Do:\n```python\n{BAD}```\nbye"));
    assert_eq!((reply.sent.as_str(), ids(&reply).as_str()), ("Do:\n", "insecure-os-system-use"));
    let text = format!("Do:\n````py\n{GOOD}```\n{BAD}````\n");
    let reply = every_split::<CodeShield>(json!({}), &text);
    assert_eq!(reply.sent, "Do:\n");
}

#[test]
fn secure_blocks_and_prose_leave_whole_however_they_are_cut() {
    for text in [
        format!("A\n```python\n{GOOD}```\nB `os.system(x)` C\n~~~\n{GOOD}~~~ \n"),
        "```\nint main() { return 0; }".into(),
        "use ```inline``` and eval(x)\n``` not a fence ` at all\n".into(),
        format!("> ```js\n> const a = 1;\n> ```\nos.system(cmd) {GOOD}"),
        "``".into(),
        "```".into(),
        "```python".into(),
        "\n\n".into(),
        String::new(),
    ] {
        let reply = every_split::<CodeShield>(json!({}), &text);
        assert_eq!((reply.sent.as_str(), reply.violation), (text.as_str(), None));
    }
}

#[test]
fn a_block_that_never_closes_is_judged_at_the_end() {
    let reply = every_split::<CodeShield>(json!({}), &format!("x\n```python\n{BAD}"));
    assert_eq!(reply.sent, "x\n");
}

#[test]
fn a_long_block_is_judged_in_parts_that_overlap() {
    let filler = |bytes: usize| "value = compute(value)  # ä\n".repeat(bytes / 28 + 1);
    for before in [0, 30_000, 32_700, 33_000, 70_000] {
        let text = format!("x\n```python\n{}os.system(cmd)\n{}```\n", filler(before), filler(40_000));
        let pieces: Vec<&str> = (0..text.len())
            .step_by(999)
            .map(|at| {
                let end = text.floor_char_boundary((at + 999).min(text.len()));
                &text[text.floor_char_boundary(at)..end]
            })
            .collect();
        let whole = stream::<CodeShield>(json!({}), &[&text]).unwrap();
        assert_eq!(stream::<CodeShield>(json!({}), &pieces).unwrap(), whole);
        assert_eq!(ids(&whole), "insecure-os-system-use");
        assert!(!whole.sent.contains("os.system"));
        let metadata: Value = serde_json::from_str(&whole.violation.unwrap().metadata).unwrap();
        assert_eq!(metadata["issues"][0]["line"], filler(before).lines().count() + 1);
    }
    // One line without an end.
    let text = format!("```python\n{}; os.system(cmd)\n```", "x = 1; ".repeat(9_000));
    let reply = stream::<CodeShield>(json!({}), &[&text]).unwrap();
    assert!(reply.violation.is_some() && !reply.sent.contains("os.system"));
}

#[test]
fn the_fences_word_decides_on_the_rules() {
    let blocks = |label: &str, code: &str| {
        stream::<CodeShield>(json!({}), &[&format!("```{label}\n{code}\n```\n")]).unwrap().violation.is_some()
    };
    assert!(blocks("c", "system(cmd);"));
    assert!(!blocks("python", "system(cmd)"));
    assert!(blocks("", "system(cmd);"));
    assert!(!blocks("bash", "system(cmd);"));
    assert!(blocks("bash", &format!("export T=ghp_{}", "a".repeat(36))));
    assert!(blocks("C++ title=\"a\"", "system(cmd);"));
}

#[test]
fn tool_calls_are_judged_inside_of_their_strings() {
    let shield = testing::plugin::<CodeShield>(json!({})).unwrap();
    let mut session = shield.session(Channel::ToolCall, Vec::new()).unwrap();
    assert_eq!(session.feed("run\n{\"code\": \"import os\\nos.sys").unwrap().cleared, 0);
    assert_eq!(session.feed("tem(cmd)\\n\"}").unwrap().cleared, 0);
    let ruling = session.finish().unwrap();
    assert_eq!((ruling.cleared, ruling.violation.unwrap().category.as_str()), (0, "insecure-code"));
}

#[test]
fn messages_without_fences_are_code_unless_told_otherwise() {
    let blocked = |config: Value, text: &str| matches!(check::<CodeShield>(config, text).unwrap(), Verdict::Block(_));
    assert!(blocked(json!({}), BAD));
    assert!(blocked(json!({"language": "c"}), "gets(line)"));
    assert!(!blocked(json!({"language": "python"}), "gets(line)"));
    assert!(!blocked(json!({"unfenced": "never"}), BAD));
    assert!(!blocked(json!({}), &format!("{BAD}\n```python\n{GOOD}```")));
    assert!(blocked(json!({"unfenced": "always"}), &format!("{BAD}\n```python\n{GOOD}```")));
    assert!(!blocked(json!({"languages": ["java"]}), BAD));
    assert!(!blocked(json!({}), "What does eval() do, and how do I call a system?"));
}

#[test]
fn severities_are_treated_as_configured() {
    let advice = "unsafe { f() }";
    let config = |treatment: Value| json!({"language": "rust", "use_case": "cyberseceval", "treatment": treatment});
    let host = testing::Host::new();
    assert_eq!(check::<CodeShield>(config(json!({})), advice).unwrap(), Verdict::Pass);
    assert!(host.logs()[0].1.contains("RUST-R-003"));
    assert!(matches!(check::<CodeShield>(config(json!({"advice": "block"})), advice).unwrap(), Verdict::Block(_)));
    let ignore = json!({"language": "c", "treatment": {"error": "ignore", "warning": "ignore"}});
    assert_eq!(check::<CodeShield>(ignore, "gets(line); strcpy(a, b);").unwrap(), Verdict::Pass);
}

#[test]
fn a_violation_tells_what_was_found_and_where() {
    let Verdict::Block(violation) = check::<CodeShield>(json!({}), "```c\n\nx = 1;\n  gets(line);\n```").unwrap()
    else {
        panic!("passes");
    };
    let metadata: Value = serde_json::from_str(&violation.metadata).unwrap();
    assert_eq!(metadata["recommended_treatment"], "block");
    let issue = &metadata["issues"][0];
    let want = json!(["error", 3, 10, "regex", "bugprone-gets", "c", "CWE-242"]);
    let got: Vec<&Value> = ["severity", "line", "char", "analyzer", "pattern_id", "language", "cwe_id"]
        .iter()
        .map(|f| &issue[f])
        .collect();
    assert_eq!(json!(got), want);
}

#[test]
fn rules_go_on_and_off_by_id() {
    let blocked =
        |config: Value| matches!(check::<CodeShield>(config, "x = MD5_Init(&c);").unwrap(), Verdict::Block(_));
    assert!(blocked(json!({"language": "c"})));
    assert!(!blocked(json!({"language": "c", "disable": ["md5-usage"]})));
    assert!(check::<CodeShield>(json!({"enable": ["md5-usag"]}), "x").is_err());
    assert!(check::<CodeShield>(json!({"use_cases": 1}), "x").is_err());
}

#[test]
fn hostile_code_is_read_within_bounds() {
    for unit in [
        "(",
        "[",
        "{",
        "a.",
        "a(",
        "1+",
        "\"a\" + ",
        "if x:\n ",
        "if(a){",
        "else if(a)",
        "!",
        "x=>",
        "<a ",
        "f\"{",
        "class a:\n\t",
        "new ",
        "a ? ",
        "lambda:",
        "a[",
        "`${",
        "do ",
        "= ",
        "if(",
        "for(",
        "async ",
        "typedef ",
        "template<a> ",
        "static ",
        "await ",
        "namespace a {",
        "(a)",
        "a<",
        "@a(",
        "[a(",
    ] {
        for language in ["python", "javascript", "c", "csharp", "java", "php", "cpp"] {
            let code =
                format!("eval(x); system(x); os.system(x); Redirect(x); new URL(x).connect(); {}", unit.repeat(1500));
            let config = json!({"language": language, "use_case": "cyberseceval", "enable": ["unsafe-exec", "insecure-eval-use"]});
            // A verdict, or an error that says why there is none: never a panic, and never long.
            let began = std::time::Instant::now();
            let _: Result<Verdict> = check::<CodeShield>(config, &code);
            assert!(began.elapsed().as_secs() < 30, "{unit:?} as {language} took {:?}", began.elapsed());
        }
    }
}

/// Fragments of fences and code, so that texts are full of near misses.
fn text() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "```",
        "``",
        "`",
        "~~~",
        "````",
        "\n",
        "\n",
        "python\n",
        "c\n",
        " ",
        "> ",
        "os.system(cmd)",
        "system(cmd);",
        "x = 1",
        "(",
        ")",
        "{",
        "}",
        "\"",
        "'",
        "'''",
        "f\"{",
        "<",
        "/*",
        "*/",
        "#",
        "//",
        "é",
        "😀",
        "$X",
        "...",
        "\t",
        "def f(a):",
        "if x:",
        "function(",
        "=>",
        "class A",
        "import ",
        "new ",
        ";",
        ",",
        "<?php",
        "?>",
        "\\",
        "@",
        "[",
        "]",
        "%",
        "eval(",
    ]);
    prop::collection::vec(fragment, 0..24).prop_map(|f| f.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_chunking_gives_what_the_whole_text_gives(text in text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8), always in any::<bool>()) {
        let config = json!({"unfenced": if always { "always" } else { "never" }});
        let whole = stream::<CodeShield>(config.clone(), &[&text]).unwrap();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| text.floor_char_boundary(c.index(text.len() + 1))).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
        prop_assert_eq!(&stream::<CodeShield>(config.clone(), &pieces).unwrap(), &whole);
        match check::<CodeShield>(config, &text).unwrap() {
            Verdict::Block(_) => prop_assert!(whole.violation.is_some()),
            _ => prop_assert_eq!(whole, Reply { sent: text, violation: None }),
        }
    }

    /// Any text is read to its end, in every language.
    #[test]
    fn the_parser_takes_any_text(text in text(), language in prop::sample::select(crate::language::Language::DEFAULT.to_vec())) {
        let tree = crate::syntax::Reader::new(language).code(&text).unwrap();
        for id in tree.ids() {
            let node = tree.node(id);
            prop_assert!(node.start <= node.end && node.end <= text.len());
            prop_assert!(text.is_char_boundary(node.start) && text.is_char_boundary(node.end));
            prop_assert!(node.kids.iter().all(|&kid| kid < id));
        }
    }
}

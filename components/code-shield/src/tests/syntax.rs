//! What the grammars' trees become: patterns mean what they say, and code that is broken is read as far as it goes.

use super::prefilter::formulas;
use super::scanner;
use crate::bindings::is_metavariable;
use crate::language::Language::{self, *};
use crate::rules::{Formula, SYNTAX, UseCase};
use crate::syntax::Reader;
use crate::tree::{Id, Kind, Tree};

fn patterns(formula: &'static Formula, out: &mut Vec<&'static str>) {
    match formula {
        Formula::Pattern { source, .. } => out.push(source),
        Formula::All(parts) | Formula::Any(parts) => parts.iter().for_each(|part| patterns(part, out)),
        Formula::Inside(part) | Formula::Not(part) | Formula::MetaPattern(_, part) => patterns(part, out),
        _ => {}
    }
}

#[test]
fn every_part_of_a_pattern_is_understood() {
    let mut seen = 0;
    for rule in SYNTAX {
        let language = rule.about.language.unwrap();
        let mut all = Vec::new();
        formulas(&rule.body).into_iter().for_each(|formula| patterns(formula, &mut all));
        for source in all {
            let tree = Reader::new(language).pattern(source);
            let reached = tree.below(tree.root);
            assert!(!tree.node(tree.root).kids.is_empty(), "{source}");
            assert!(reached.iter().all(|&id| tree.kind(id) != Kind::Other), "{source}: {tree:?}");
            let names = source.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '$'));
            for name in names.filter(|name| is_metavariable(name)) {
                let has = |&id: &Id| tree.node(id).atom.contains(name);
                assert!(reached.iter().any(has), "{source}: no {name} in {tree:?}");
            }
            // Those in strings and comments aside, an ellipsis is a node, or the member of a chain.
            let ellipses = source.matches("...").count();
            let quoted = source.contains(['"', '\'', '`', '/']) || source.contains("<...");
            let found = |id: &&Id| tree.kind(**id) == Kind::Ellipsis || tree.node(**id).atom == "...";
            assert!(quoted || reached.iter().filter(found).count() == ellipses, "{source}: {tree:?}");
            seen += 1;
        }
    }
    assert!(seen > 700, "only {seen} patterns");
}

/// Language, code in which a rule has one finding.
const BROKEN: &[(Language, &str, &str)] = &[
    (Python, "insecure-eval-use", "if a:\n    eval(x)\n  b = 3\nelse\n"),
    (Python, "insecure-eval-use", "x = (1, [2, {\nprint('a')\n\ndef g():\n    return eval(x)\n"),
    (Python, "insecure-eval-use", ">>> eval(x)\n3\n"),
    (Python, "insecure-eval-use", "print 'a'\neval(x)\n"),
    (JavaScript, "eval-with-expression", "function f(x) { if (x) { eval(x);"),
    (JavaScript, "eval-with-expression", "}\n}\neval(x);\n"),
    (JavaScript, "eval-with-expression", "a = {b: 1,, c: 2};\neval(x)\n"),
    (C, "vulnerable-strcpy", "int main() { char b[9]; strcpy(b, s)\n"),
    (C, "vulnerable-strcpy", "if (x) {\n strcpy(b, s);\n} else {\n"),
    (C, "vulnerable-strcpy", "#ifdef A\nint f(void) {\n#else\nint f(int x) {\n#endif\n strcpy(b, s);\n}\n"),
    (Cpp, "vulnerable-strcpy", "template <typename T> struct A : B<T> { void f() const { strcpy(b, s); } };"),
    (ObjectiveC, "vulnerable-strcpy", "- (void)copy:(NSString *)s {\n    strcpy(b, t);\n    [self done];\n}\n"),
    (
        ObjectiveC,
        "vulnerable-strcpy",
        "@implementation A\n- (int)f {\n    strcpy(b, s.text);\n    return 1;\n}\n@end\n",
    ),
    (Java, "random_number_generator_methods", "public int f() {\n return new java.util.Random().nextInt();\n"),
    (Java, "deserialization_insecure_untrusted_data", "try { Object o = new ObjectInputStream(in); } catch ("),
    (CSharp, "crypto-weak-hashing-function", "public void F() {\n var h = new MD5CryptoServiceProvider();\n"),
    (CSharp, "crypto-weak-hashing-function", "}\n}\nvar h = new MD5CryptoServiceProvider();"),
    (Php, "unsafe-hash-use", "function f($x) { if ($x) { return md5($x);"),
    (Php, "unsafe-hash-use", "<html><?php if ($a): ?><b><?= md5($a) ?></b><?php endif; ?>"),
];

/// The same in TypeScript.
const TYPESCRIPT: &[&str] = &[
    "function f(x: string): void { eval(x); }",
    "const y: any = eval(x);",
    "class A { private x: string = 'a'; run(x: string): Promise<void> { return eval(x); } }",
    "interface A { x: string; y?: number }\neval(x);",
    "type A = { x: string } | null;\neval(x as string);",
    "enum A { B, C }\nexport const f = async (x: string): Promise<number> => { return eval(x); };",
    "@Component({selector: 'a'})\nexport class A { constructor(private readonly b: B) { eval(x); } }",
    "function f<T extends A>(x: T): T { return eval(x); }",
    "declare module 'a' { }\nnamespace B { eval(x); }",
    "let a = b!.c satisfies D;\neval(x!);",
];

#[test]
fn broken_code_is_read_as_far_as_it_goes() {
    let typescript = TYPESCRIPT.iter().map(|code| (JavaScript, "eval-with-expression", *code));
    let mut wrong = Vec::new();
    for (language, id, code) in BROKEN.iter().copied().chain(typescript) {
        let issues = scanner(UseCase::CyberSecEval, &[id]).scan(code, Some(language)).unwrap();
        let found = issues.iter().filter(|i| i.analyzer == "semgrep" && i.pattern_id == id).count();
        if found != 1 {
            wrong.push(format!("{language:?} {id}: {found} in\n{code}"));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn calls(tree: &Tree<'_>) -> usize {
    tree.below(tree.root).into_iter().filter(|&id| tree.kind(id) == Kind::Call).count()
}

#[test]
fn nesting_has_no_limit_and_takes_no_stack() {
    for (language, open, close) in [
        (Python, "f(", ")"),
        (JavaScript, "f(", ")"),
        (Java, "f(", ")"),
        (C, "f(", ")"),
        (CSharp, "f(", ")"),
        (Php, "f(", ")"),
    ] {
        let depth = 2_000;
        let code = format!("x = {}1{};", open.repeat(depth), close.repeat(depth));
        let on_little_stack = std::thread::Builder::new().stack_size(128 << 10);
        let reads = move || calls(&Reader::new(language).code(&code).unwrap());
        assert_eq!(on_little_stack.spawn(reads).unwrap().join().unwrap(), depth, "{language:?}");
    }
}

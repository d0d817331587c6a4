//! Languages: their names, and guesses at the language of a block that does not name one.

use stockade_guest::prelude::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    C,
    #[serde(alias = "c++")]
    Cpp,
    #[serde(rename = "csharp", alias = "c#")]
    CSharp,
    Java,
    #[serde(rename = "javascript")]
    JavaScript,
    ObjectiveC,
    Php,
    Python,
    Ruby,
    Rust,
    Swift,
    Xml,
}

use Language::*;

impl Language {
    /// What is tried on code of unknown language.
    pub const DEFAULT: [Language; 8] = [C, Cpp, CSharp, Java, JavaScript, Php, Python, Rust];

    pub fn name(self) -> &'static str {
        match self {
            C => "c",
            Cpp => "cpp",
            CSharp => "csharp",
            Java => "java",
            JavaScript => "javascript",
            ObjectiveC => "objective_c",
            Php => "php",
            Python => "python",
            Ruby => "ruby",
            Rust => "rust",
            Swift => "swift",
            Xml => "xml",
        }
    }

    /// The language whose rules this one also follows.
    pub fn base(self) -> Option<Language> {
        matches!(self, Cpp | ObjectiveC).then_some(C)
    }

    /// The language that a fence's info string names. `None`: no word, or none of ours.
    pub fn of_info(info: &str) -> Option<Language> {
        let word = info.trim_start_matches(['{', '.', ' ']);
        let word = word.split(|c: char| c.is_whitespace() || ",:{}".contains(c)).next()?;
        Some(match word.to_ascii_lowercase().as_str() {
            "c" | "h" => C,
            "cpp" | "c++" | "cc" | "cxx" | "hpp" | "h++" | "arduino" | "cuda" => Cpp,
            "cs" | "c#" | "csharp" | "razor" | "cshtml" => CSharp,
            "java" | "jsp" => Java,
            "js" | "javascript" | "jsx" | "ts" | "tsx" | "typescript" | "node" | "mjs" | "vue" | "svelte" => JavaScript,
            "objc" | "objective-c" | "objectivec" | "objective_c" | "obj-c" | "mm" => ObjectiveC,
            "php" | "php3" | "php4" | "php5" | "phtml" => Php,
            "py" | "python" | "python3" | "py3" | "ipython" | "pycon" | "jupyter" => Python,
            "rb" | "ruby" => Ruby,
            "rs" | "rust" => Rust,
            "swift" => Swift,
            "xml" | "plist" => Xml,
            _ => return None,
        })
    }

    /// Guesses from what only this language, or nearly so, writes. `None` where nothing or too much speaks up.
    pub fn guess(code: &str) -> Option<Language> {
        /// One mark of a language and how much it weighs.
        const MARKS: &[(Language, &str, u32)] = &[
            (Php, "<?php", 9),
            (Php, "$this->", 4),
            (Php, "echo $", 3),
            (Php, "$_", 3),
            (Xml, "<?xml", 9),
            (CSharp, "using System", 6),
            (CSharp, "namespace ", 2),
            (CSharp, "Console.Write", 4),
            (CSharp, "public async Task", 4),
            (Java, "import java", 6),
            (Java, "System.out.", 4),
            (Java, "public static void main(String", 6),
            (Java, "throws ", 2),
            (Cpp, "std::", 5),
            (Cpp, "#include <iostream>", 6),
            (Cpp, "cout <<", 4),
            (Cpp, "template <", 3),
            (Cpp, "nullptr", 2),
            (C, "#include", 4),
            (C, "int main(", 2),
            (C, "printf(", 2),
            (C, "char *", 2),
            (C, "malloc(", 2),
            (JavaScript, "console.log", 4),
            (JavaScript, "require(", 3),
            (JavaScript, "const ", 2),
            (JavaScript, "function ", 1),
            (JavaScript, "=> {", 2),
            (JavaScript, "===", 3),
            (JavaScript, "document.", 3),
            (Python, "def ", 3),
            (Python, "import ", 1),
            (Python, "elif ", 4),
            (Python, "self.", 3),
            (Python, "print(", 1),
            (Python, "__name__", 4),
            (Python, "None", 1),
            (Ruby, "puts ", 3),
            (Ruby, "require '", 3),
            (Ruby, "do |", 3),
            (Rust, "fn ", 3),
            (Rust, "let mut ", 5),
            (Rust, "impl ", 3),
            (Rust, "println!", 4),
            (Rust, "use std::", 5),
            (Swift, "import UIKit", 6),
            (Swift, "import Foundation", 4),
            (Swift, "guard let", 4),
            (Swift, "func ", 2),
            (ObjectiveC, "@interface", 6),
            (ObjectiveC, "@implementation", 6),
            (ObjectiveC, "#import <", 4),
        ];
        /// How far ahead of the next one a guess must be.
        const LEAD: u32 = 3;
        let mut scores = [0; 12];
        for (language, mark, weight) in MARKS {
            if code.contains(mark) {
                scores[*language as usize] += weight;
            }
        }
        let (best, score) = MARKS.iter().map(|(l, ..)| (*l, scores[*l as usize])).max_by_key(|(_, s)| *s)?;
        let second = MARKS.iter().filter(|(l, ..)| *l != best).map(|(l, ..)| scores[*l as usize]).max()?;
        (score >= second + LEAD).then_some(best)
    }
}

mod conformance;
mod prefilter;
mod rules;
mod stream;
mod syntax;

use crate::expression::Compiled;
use crate::rules::UseCase;
use crate::scan::Scanner;
use std::collections::HashSet;

fn scanner(use_case: UseCase, enable: &[&str]) -> Scanner {
    Scanner {
        use_case,
        languages: None,
        enable: enable.iter().map(|id| id.to_string()).collect(),
        disable: HashSet::new(),
        compiled: Compiled::default(),
    }
}

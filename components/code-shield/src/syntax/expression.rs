//! Values: literals, names, operators, calls, objects.

use super::{Id, Kind, Lowering, Parts};
use crate::language::Language;
use std::ops::Range;

impl<'s> Lowering<'s> {
    /// What becomes of an expression; `None` for anything else.
    pub(super) fn expression(&mut self, kind: &str, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Id> {
        let text = &self.source[at.clone()];
        Some(match kind {
            "variable_name" => self.leaf(Kind::Name, text, at, parts),
            // Names that stand for more than themselves count without it: a template's arguments, a path of PHP.
            "generic_name" | "template_function" | "template_method" => {
                let name = self.node(parts.first()?).atom;
                self.leaf(Kind::Name, name, at, parts)
            }
            "qualified_name" | "relative_name" if self.language == Language::Php => {
                let name = text.rsplit('\\').next().unwrap_or(text);
                self.leaf(Kind::Name, name, at, parts)
            }
            "number_literal"
            | "integer"
            | "float"
            | "number"
            | "integer_literal"
            | "real_literal"
            | "decimal_integer_literal"
            | "hex_integer_literal"
            | "octal_integer_literal"
            | "binary_integer_literal"
            | "decimal_floating_point_literal"
            | "hex_floating_point_literal" => self.leaf(Kind::Number, text, at, parts),
            "regex" => self.leaf(Kind::Regex, text, at, parts),
            "string_literal"
            | "raw_string_literal"
            | "verbatim_string_literal"
            | "system_lib_string"
            | "char_literal"
            | "character_literal"
            | "string"
            | "encapsed_string"
            | "heredoc"
            | "nowdoc"
            | "template_string"
            | "interpolated_string_expression"
            | "concatenated_string" => self.string(kind, text, at, parts),
            "shell_command_expression" => {
                let values = self.values(parts);
                self.add(Kind::Template, text, at.clone(), values)
            }
            "interpolation" | "template_substitution" | "heredoc_body" => {
                let values = self.values(parts);
                self.add(Kind::Other, "", at.clone(), values)
            }

            "parenthesized_expression" if parts.list.len() == 1 => parts.first()?,
            "member_expression"
            | "field_access"
            | "member_access_expression"
            | "nullsafe_member_access_expression"
            | "scoped_property_access_expression"
            | "class_constant_access_expression"
            | "scoped_identifier"
            | "scoped_type_identifier"
            | "qualified_identifier"
            | "qualified_name"
            | "alias_qualified_name"
            | "field_expression"
            | "attribute"
                if parts.list.len() > 1 && (kind != "attribute" || self.language == Language::Python) =>
            {
                let name = self.word(parts.last()?);
                self.add(Kind::Member, name, at.clone(), vec![parts.first()?])
            }
            "member_binding_expression" => {
                let name = self.word(parts.first()?);
                let object = self.missing(at.start);
                self.add(Kind::Member, name, at.clone(), vec![object])
            }
            "conditional_access_expression" => self.bind(parts.first()?, parts.last()?, at),

            "call_expression" | "invocation_expression" | "function_call_expression" | "call" => {
                let callee = parts.field(&["function"])?;
                if self.pattern && text.starts_with("<...") {
                    let arguments = self.arguments(parts);
                    return Some(self.add(Kind::Deep, "", at.clone(), arguments));
                }
                self.call(callee, at, parts)
            }
            "method_invocation"
            | "member_call_expression"
            | "nullsafe_member_call_expression"
            | "scoped_call_expression" => {
                let name = parts.field(&["name"])?;
                let callee = match parts.field(&["object", "scope"]) {
                    Some(object) => {
                        let (start, end) = (self.node(object).start, self.node(name).end);
                        let name = self.word(name);
                        self.add(Kind::Member, name, start..end, vec![object])
                    }
                    None => name,
                };
                self.call(callee, at, parts)
            }
            "explicit_constructor_invocation" => self.call(parts.field(&["constructor"])?, at, parts),
            "sizeof_expression" => {
                let name = self.add(Kind::Name, "sizeof", at.clone(), Vec::new());
                let kids = std::iter::once(name).chain(parts.ids()).collect();
                self.add(Kind::Call, "", at.clone(), kids)
            }
            "print_statement" | "exec_statement" => {
                let word = if kind == "print_statement" { "print" } else { "exec" };
                let name = self.add(Kind::Name, word, at.start..at.start + word.len(), Vec::new());
                let kids = std::iter::once(name).chain(parts.ids()).collect();
                self.add(Kind::Call, "", at.clone(), kids)
            }
            "arguments"
            | "argument_list"
            | "bracketed_argument_list"
            | "subscript_argument_list"
            | "attribute_argument_list"
            | "annotation_argument_list" => self.add(Kind::Arguments, "", at.clone(), parts.ids()),
            "argument" | "keyword_argument" | "attribute_argument" => return self.argument(at, parts),
            "subscript_expression" | "array_access" | "element_access_expression" | "subscript" => {
                let (object, mut kids) = (parts.first()?, vec![]);
                for id in parts.ids().into_iter().skip(1) {
                    match self.is(id, Kind::Arguments) {
                        true => kids.extend(self.contents(id)),
                        false => kids.push(id),
                    }
                }
                kids.insert(0, object);
                self.add(Kind::Index, "", at.clone(), kids)
            }

            "array_creation_expression" if self.language == Language::Php => {
                self.add(Kind::List, "", at.clone(), parts.ids())
            }
            "new_expression" | "object_creation_expression" | "array_creation_expression" => {
                self.new_object(at, parts)?
            }
            "implicit_object_creation_expression"
            | "implicit_array_creation_expression"
            | "anonymous_object_creation_expression" => {
                let kind = self.missing(at.start);
                let arguments = self.or_missing(parts.kind(&["argument_list"]), at);
                let object = self.or_missing(parts.kind(&["initializer_expression"]), at);
                self.add(Kind::New, "", at.clone(), vec![kind, arguments, object])
            }

            "unary_expression"
            | "update_expression"
            | "prefix_unary_expression"
            | "pointer_expression"
            | "unary_op_expression"
            | "unary_operator"
            | "not_operator"
            | "await_expression"
            | "await"
            | "yield_expression"
            | "yield"
            | "yield_statement"
            | "delete_expression"
            | "delete_statement"
            | "co_await_expression"
            | "ref_expression"
            | "spread_element"
            | "list_splat"
            | "dictionary_splat"
            | "list_splat_pattern"
            | "dictionary_splat_pattern"
            | "rest_pattern"
            | "variadic_unpacking"
            | "by_ref"
            | "clone_expression"
            | "error_suppression_expression"
            | "print_intrinsic"
            | "include_expression"
            | "include_once_expression"
            | "require_expression"
            | "require_once_expression"
            | "echo_statement"
            | "throw_expression"
            | "throw_statement"
                if !parts.list.is_empty() =>
            {
                self.add(Kind::Unary, parts.sign(), at.clone(), parts.ids())
            }
            "postfix_unary_expression" => match parts.sign() {
                // "Not null."
                "!" => parts.first()?,
                sign => self.add(Kind::Unary, sign, at.clone(), parts.ids()),
            },
            "as_expression" if self.language == Language::JavaScript => parts.first()?,
            "satisfies_expression" | "non_null_expression" | "instantiation_expression" => parts.first()?,
            "binary_expression"
            | "binary_operator"
            | "boolean_operator"
            | "is_expression"
            | "as_expression"
            | "is_pattern_expression"
                if parts.list.len() == 2 =>
            {
                self.add(Kind::Binary, parts.sign(), at.clone(), parts.ids())
            }
            "instanceof_expression" => self.add(Kind::Binary, "instanceof", at.clone(), parts.ids()),
            "comparison_operator" => {
                let mut left = parts.first()?;
                for (n, &right) in parts.ids().iter().enumerate().skip(1) {
                    let sign = parts.signs.get(n - 1).copied().unwrap_or_default();
                    let (start, end) = (at.start, self.node(right).end);
                    left = self.add(Kind::Binary, sign, start..end, vec![left, right]);
                }
                left
            }
            "assignment_expression"
            | "augmented_assignment_expression"
            | "reference_assignment_expression"
            | "augmented_assignment"
            | "assignment"
            | "named_expression"
            | "element_value_pair"
            | "lambda_capture_initializer"
                if parts.list.len() > 1 =>
            {
                let (target, value) = (parts.first()?, parts.last()?);
                match parts.field(&["type"]).and_then(|id| self.kind_of_value(id)) {
                    // A variable's declaration in Python.
                    Some(kind) => {
                        let value = if value == kind { self.missing(at.end) } else { value };
                        self.add(Kind::Let, "", at.clone(), vec![kind, target, value])
                    }
                    None => self.add(Kind::Assign, parts.sign(), at.clone(), vec![target, value]),
                }
            }
            "ternary_expression" | "conditional_expression" => {
                let (condition, then, otherwise) = match parts.ids()[..] {
                    // Python's value comes first, without names of the parts.
                    [then, condition, otherwise] if self.language == Language::Python => {
                        (condition, Some(then), Some(otherwise))
                    }
                    _ => (
                        parts.field(&["condition"])?,
                        parts.field(&["consequence", "body"]),
                        parts.field(&["alternative"]),
                    ),
                };
                let kids = vec![condition, self.or_missing(then, at), self.or_missing(otherwise, at)];
                self.add(Kind::Conditional, "", at.clone(), kids)
            }
            "cast_expression" => parts.field(&["value"])?,
            "declaration_expression" => parts.field(&["name"])?,

            "object"
            | "dictionary"
            | "initializer_expression"
            | "initializer_list"
            | "array_initializer"
            | "set"
            | "element_value_array_initializer" => self.object(at, parts),
            "pair" | "initializer_pair" | "pair_pattern" => self.pair(at, parts)?,
            "array_element_initializer" if parts.list.len() == 2 => {
                self.add(Kind::Binary, "=>", at.clone(), parts.ids())
            }
            "array_element_initializer" => parts.first()?,
            "array" | "list" | "collection_expression" | "array_pattern" | "list_pattern" | "list_literal" => {
                self.add(Kind::List, "", at.clone(), parts.ids())
            }
            "tuple"
            | "tuple_expression"
            | "tuple_pattern"
            | "expression_list"
            | "pattern_list"
            | "sequence_expression"
            | "comma_expression"
            | "parenthesized_expression" => {
                let mut kids = Vec::new();
                for id in parts.ids() {
                    match kind == "comma_expression" && self.is(id, Kind::Tuple) {
                        true => kids.extend(self.contents(id)),
                        false => kids.push(id),
                    }
                }
                self.add(Kind::Tuple, "", at.clone(), kids)
            }

            "jsx_element" | "jsx_self_closing_element" | "jsx_opening_element" => self.element(at, parts),
            "jsx_attribute" => {
                let name = self.word(parts.first()?);
                self.add(Kind::Pair, name, at.clone(), parts.ids().into_iter().skip(1).collect())
            }
            _ => return None,
        })
    }

    fn string(&mut self, kind: &str, text: &'s str, at: &Range<usize>, parts: &Parts<'_, 's>) -> Id {
        let joined = kind == "concatenated_string";
        let values: Vec<Id> = match joined {
            true => parts.ids().into_iter().filter(|&id| self.is(id, Kind::Template)).collect(),
            false => self.values(parts),
        };
        let content = match joined || kind == "heredoc" || kind == "nowdoc" {
            true => text,
            false => unquoted(text),
        };
        match values.is_empty() {
            true => self.leaf(Kind::Text, content, at, parts),
            false => self.add(Kind::Template, content, at.clone(), values),
        }
    }

    /// The expressions in a string.
    fn values(&mut self, parts: &Parts<'_, 's>) -> Vec<Id> {
        const TEXT: [&str; 16] = [
            "string_content",
            "string_fragment",
            "string_start",
            "string_end",
            "string_literal_content",
            "string_literal_encoding",
            "multiline_string_fragment",
            "escape_sequence",
            "interpolation_start",
            "interpolation_quote",
            "interpolation_brace",
            "heredoc_start",
            "heredoc_end",
            "format_specifier",
            "type_conversion",
            "html_character_reference",
        ];
        let mut values = Vec::new();
        for part in &parts.list {
            if TEXT.contains(&part.kind) {
                self.remove(part.id);
            } else if matches!(part.kind, "interpolation" | "template_substitution" | "heredoc_body") {
                values.extend(self.contents(part.id));
            } else {
                values.push(part.id);
            }
        }
        values
    }

    fn call(&mut self, callee: Id, at: &Range<usize>, parts: &Parts<'_, 's>) -> Id {
        let mut kids = vec![callee];
        kids.extend(self.arguments(parts));
        self.add(Kind::Call, "", at.clone(), kids)
    }

    fn arguments(&mut self, parts: &Parts<'_, 's>) -> Vec<Id> {
        match parts.field(&["arguments"]) {
            Some(list) if self.is(list, Kind::Arguments) => self.contents(list),
            // A template of JavaScript, a comprehension of Python.
            Some(one) => vec![one],
            None => Vec::new(),
        }
    }

    /// An argument, with its name where it has one.
    fn argument(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Id> {
        let value = parts.last()?;
        let name = parts.first().filter(|&name| name != value);
        Some(match (name, parts.sign()) {
            (Some(name), "=") if self.language == Language::CSharp => {
                self.add(Kind::Assign, "=", at.clone(), vec![name, value])
            }
            (Some(name), _) => {
                let name = self.word(name);
                self.add(Kind::Keyword, name, at.clone(), vec![value])
            }
            (None, sign @ ("out" | "ref" | "&")) => self.add(Kind::Unary, sign, at.clone(), vec![value]),
            (None, _) => value,
        })
    }

    /// `a?.b`: the rest of the chain, which begins with nothing, gets its object.
    fn bind(&mut self, object: Id, rest: Id, at: &Range<usize>) -> Id {
        let mut inner = rest;
        while let Some(&base) = self.node(inner).kids.first() {
            if self.is(base, Kind::Missing) {
                self.nodes[inner as usize].kids[0] = object;
                self.nodes[inner as usize].start = at.start;
                break;
            }
            self.nodes[inner as usize].start = at.start;
            inner = base;
        }
        rest
    }

    fn new_object(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Id> {
        let of = parts.field(&["type", "constructor"]).or_else(|| {
            let class = |part: &&super::Part<'_>| !matches!(part.kind, "arguments" | "anonymous_class");
            parts.list.iter().find(class).map(|part| part.id)
        });
        let arguments = parts.field(&["arguments"]).or_else(|| parts.kind(&["arguments", "argument_list"]));
        let arguments = arguments.filter(|&id| self.node(id).start < self.source.len());
        let dimensions = parts.fields("dimensions");
        let arguments = match (arguments, dimensions.is_empty()) {
            (None, false) => Some(self.add(Kind::Arguments, "", at.clone(), dimensions)),
            _ => arguments,
        };
        let object = parts.field(&["initializer", "value"]);
        let object = object.or_else(|| parts.kind(&["class_body", "initializer_expression", "anonymous_class"]));
        let named = |kind| matches!(kind, Kind::Name | Kind::Member | Kind::Type | Kind::Index | Kind::Missing);
        let of = match of {
            Some(id) if named(self.node(id).kind) => self.kind_of_value(id),
            other => other,
        };
        let kids = vec![self.or_missing(of, at), self.or_missing(arguments, at), self.or_missing(object, at)];
        Some(self.add(Kind::New, "", at.clone(), kids))
    }

    /// `{..}`, where an assignment gives a key its value and a function is one.
    fn object(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Id {
        let mut kids = Vec::new();
        for id in parts.ids() {
            let node = self.node(id);
            let span = node.start..node.end;
            match (node.kind, node.atom, node.kids.as_slice()) {
                (Kind::Assign, "=", &[key, value]) if self.is(key, Kind::Name) => {
                    let key = self.word(key);
                    kids.push(self.add(Kind::Pair, key, span, vec![value]));
                }
                (Kind::Function, name, _) if !name.is_empty() => {
                    self.nodes[id as usize].atom = "";
                    kids.push(self.add(Kind::Pair, name, span, vec![id]));
                }
                _ => kids.push(id),
            }
        }
        self.add(Kind::Object, "", at.clone(), kids)
    }

    fn pair(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Id> {
        let (key, value) = (parts.first()?, parts.last()?);
        if matches!(self.node(key).kind, Kind::Name | Kind::Text) {
            let key = self.word(key);
            return Some(self.add(Kind::Pair, key, at.clone(), vec![value]));
        }
        Some(self.add(Kind::Pair, "", at.clone(), vec![key, value]))
    }

    /// An element of JSX with its attributes, and what stands in it.
    fn element(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Id {
        let mut kids = Vec::new();
        let mut name = "";
        for part in &parts.list {
            match (part.field, part.kind) {
                ("name", _) => name = self.word(part.id),
                ("open_tag", _) => {
                    name = self.node(part.id).atom;
                    kids.extend(self.contents(part.id));
                }
                ("close_tag", _) | (_, "jsx_text" | "html_character_reference") => self.remove(part.id),
                _ => kids.push(part.id),
            }
        }
        self.add(Kind::Element, name, at.clone(), kids)
    }
}

/// A string's content without its quotes and what stands before them.
fn unquoted(text: &str) -> &str {
    let Some(begin) = text.find(['"', '\'', '`', '<']) else { return text };
    let (quote, rest) = (text.as_bytes()[begin] as char, &text[begin + 1..]);
    let close = if quote == '<' { '>' } else { quote };
    let triple = rest.len() > 4 && rest.starts_with([quote; 2].iter().collect::<String>().as_str());
    let rest = if triple { &rest[2..] } else { rest };
    let end = rest.len() - rest.len().min(rest.bytes().rev().take_while(|&b| b == close as u8).count());
    let quotes = if triple { 3 } else { 1 };
    &rest[..(rest.len() - quotes.min(rest.len() - end))]
}

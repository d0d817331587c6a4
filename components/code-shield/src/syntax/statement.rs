//! Statements, blocks and imports.

use super::{Id, Kind, Lowering, Parts};
use crate::language::Language;
use std::ops::Range;

impl<'s> Lowering<'s> {
    /// What becomes of a statement, or of what is one only in its grammar; `None` for anything else.
    pub(super) fn statement(&mut self, kind: &str, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Vec<Id>> {
        let one = match kind {
            // What stands in these counts as if it stood outside.
            "ERROR"
            | "expression_statement"
            | "global_statement"
            | "local_declaration_statement"
            | "export_statement"
            | "labeled_statement"
            | "attributed_statement"
            | "template_declaration"
            | "linkage_specification"
            | "preproc_if"
            | "preproc_ifdef"
            | "preproc_else"
            | "preproc_elif"
            | "preproc_elifdef"
            | "init_statement"
            | "condition_clause"
            | "jsx_expression"
            | "decorated_definition"
            | "decorator"
            | "const_declaration"
            | "function_static_declaration"
            | "type_definition"
            | "unsafe_statement"
            | "checked_statement"
            | "checked_expression"
            | "switch_section"
            | "switch_block_statement_group"
            | "switch_default"
            | "default_statement"
            | "catch_clause"
            | "finally_clause"
            | "with_clause"
            | "resource_specification"
            | "namespace_import"
            | "collection_element"
            | "expression_element"
            | "extends_clause"
            | "implements_clause"
            | "ambient_declaration" => self.spliced(parts),
            "namespace_definition"
            | "namespace_declaration"
            | "file_scoped_namespace_declaration"
            | "internal_module"
            | "module" => match parts.field(&["body"]) {
                Some(body) => self.contents(body),
                None => Vec::new(),
            },
            "empty_statement" => Vec::new(),
            "break_statement"
            | "continue_statement"
            | "goto_statement"
            | "pass_statement"
            | "class_literal"
            | "typeof_expression"
            | "preproc_include"
            | "preproc_def"
            | "preproc_call"
            | "preproc_function_def"
            | "method_reference" => {
                vec![self.leaf(Kind::Other, "", at, parts)]
            }

            "block"
            | "statement_block"
            | "compound_statement"
            | "colon_block"
            | "class_body"
            | "interface_body"
            | "enum_body"
            | "enum_body_declarations"
            | "declaration_list"
            | "field_declaration_list"
            | "constructor_body"
            | "switch_body"
            | "switch_block"
            | "accessor_list"
            | "enum_declaration_list"
            | "property_hook_list"
            | "match_block" => {
                let statements = parts.ids().into_iter().filter(|&id| !self.is(id, Kind::Missing)).collect();
                vec![self.add(Kind::Block, "", at.clone(), statements)]
            }
            "else_clause" => vec![self.block(parts.field(&["body"]).or(parts.last())?)],
            "elif_clause" | "else_if_clause" => {
                let then = self.block(parts.field(&["consequence", "body"])?);
                vec![self.add(Kind::Other, "", at.clone(), vec![parts.field(&["condition"])?, then])]
            }
            "if_statement" => vec![self.conditional(at, parts)?],

            "for_statement"
            | "while_statement"
            | "do_statement"
            | "for_in_statement"
            | "enhanced_for_statement"
            | "foreach_statement"
            | "for_range_loop"
            | "switch_statement"
            | "switch_expression"
            | "using_statement"
            | "lock_statement"
            | "fixed_statement"
            | "with_statement"
            | "synchronized_statement"
            | "match_statement"
            | "match_expression"
            | "except_clause" => vec![self.around(at, parts)],
            "try_statement" | "try_with_resources_statement" | "seh_try_statement" => {
                vec![self.add(Kind::Other, "try", at.clone(), parts.ids())]
            }
            "switch_case" | "case_statement" | "switch_rule" | "case_clause" => {
                let label = parts.field(&["value"]);
                let rest = parts.without(&["value"]);
                let label = label.map(|value| {
                    let span = self.node(value).start..self.node(value).end;
                    self.add(Kind::Other, "case", span, vec![value])
                });
                label.into_iter().chain(rest).collect()
            }
            "return_statement" | "co_return_statement" => {
                vec![self.add(Kind::Return, "", at.clone(), parts.ids())]
            }

            "import_statement" if self.language == Language::JavaScript => vec![self.module(at, parts)],
            "import_statement" | "import_from_statement" | "future_import_statement" => {
                let text = &self.source[at.clone()];
                vec![self.leaf(Kind::Import, text, at, parts)]
            }
            "import_declaration" | "package_declaration" | "using_directive" | "namespace_use_declaration" => {
                let text = self.source[at.clone()].trim_end_matches(';');
                let path = text.split_once(char::is_whitespace).map_or("", |(_, path)| path.trim());
                let path = path.strip_prefix("static ").unwrap_or(path);
                vec![self.leaf(Kind::Import, path, at, parts)]
            }
            _ => return None,
        };
        Some(one)
    }

    fn spliced(&mut self, parts: &Parts<'_, 's>) -> Vec<Id> {
        parts.ids().into_iter().filter(|&id| !self.is(id, Kind::Missing)).collect()
    }

    /// A statement as a block, where a rule expects one.
    fn block(&mut self, id: Id) -> Id {
        match self.is(id, Kind::Block) {
            true => id,
            false => self.add(Kind::Block, "", self.node(id).start..self.node(id).end, vec![id]),
        }
    }

    fn conditional(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Id> {
        let condition = parts.field(&["condition"])?;
        let then = match parts.field(&["consequence", "body"]) {
            Some(id) => self.block(id),
            None => self.missing(at.end),
        };
        let mut otherwise = None;
        for id in parts.fields("alternative").into_iter().rev() {
            let node = self.node(id);
            otherwise = Some(match (node.kind, node.kids.as_slice()) {
                // `elif`, with what follows it.
                (Kind::Other, &[condition, then]) if self.is(then, Kind::Block) => {
                    let span = node.start..at.end;
                    self.contents(id);
                    let otherwise = self.or_missing(otherwise, &(at.end..at.end));
                    self.add(Kind::If, "", span, vec![condition, then, otherwise])
                }
                _ => self.block(id),
            });
        }
        let otherwise = self.or_missing(otherwise, &(at.end..at.end));
        Some(self.add(Kind::If, "", at.clone(), vec![condition, then, otherwise]))
    }

    /// A statement around a block: loops and their kin.
    fn around(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Id {
        let mut kids = Vec::new();
        let kind = parts.field(&["type"]).and_then(|id| self.kind_of_value(id));
        for part in &parts.list {
            match part.field {
                "type" | "kind" => {}
                "body" | "alternative" | "consequence" => kids.push(self.block(part.id)),
                // A variable with its type.
                "left" | "name" | "declarator" if kind.is_some() => {
                    let span = self.node(part.id).start..self.node(part.id).end;
                    let value = self.missing(span.end);
                    let variable = vec![kind.unwrap_or(value), part.id, value];
                    kids.push(self.add(Kind::Let, "", span, variable));
                }
                _ => kids.push(part.id),
            }
        }
        self.add(Kind::Loop, parts.sign(), at.clone(), kids)
    }

    /// `import x from "y"`, `import {a} from "y"`, `import "y"`
    fn module(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Id {
        let Some(source) = parts.field(&["source"]) else { return self.leaf(Kind::Import, "", at, parts) };
        let names = self.source[at.start..self.node(source).start].trim();
        let names = names.strip_prefix("import").unwrap_or(names).trim();
        let names = names.strip_suffix("from").unwrap_or(names).trim();
        let clause = parts.kind(&["import_clause"]);
        // The name of the whole module.
        let name =
            clause.map(|id| self.node(id).kids.first().copied().unwrap_or(id)).filter(|&id| self.is(id, Kind::Name));
        let kids = vec![self.or_missing(name, at), source];
        self.add(Kind::Import, names, at.clone(), kids)
    }
}

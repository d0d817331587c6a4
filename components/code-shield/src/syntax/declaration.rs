//! Variables, functions, classes, and what they are made of.

use super::{Id, Kind, Lowering, Part, Parts};
use crate::language::Language;
use std::ops::Range;

impl<'s> Lowering<'s> {
    /// What becomes of a declaration or a part of one; `None` for anything else.
    pub(super) fn declaration(&mut self, kind: &str, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Vec<Id>> {
        let text = &self.source[at.clone()];
        let one = match kind {
            // Types that are no expressions.
            "primitive_type"
            | "predefined_type"
            | "sized_type_specifier"
            | "template_type"
            | "type_descriptor"
            | "placeholder_type_specifier"
            | "generic_type"
            | "array_type"
            | "nullable_type"
            | "pointer_type"
            | "tuple_type"
            | "annotated_type"
            | "integral_type"
            | "floating_point_type"
            | "boolean_type"
            | "void_type"
            | "named_type"
            | "optional_type"
            | "union_type"
            | "cast_type"
            | "type"
            | "catch_type" => self.leaf(Kind::Type, text, at, parts),
            "type_annotation" => {
                let kind = text.trim_start_matches([':', ' ']);
                self.leaf(Kind::Type, kind, &(at.end - kind.len()..at.end), parts)
            }
            "type_arguments" | "type_parameters" | "type_alias_declaration" | "type_parameter_list" => {
                self.leaf(Kind::Other, "", at, parts)
            }
            "implicit_type" => self.leaf(Kind::Missing, "", at, parts),
            "struct_specifier" | "class_specifier" | "union_specifier" | "enum_specifier"
                if parts.field(&["body"]).is_none() =>
            {
                self.leaf(Kind::Type, text, at, parts)
            }

            "lexical_declaration"
            | "variable_declaration"
            | "local_variable_declaration"
            | "field_declaration"
            | "constant_declaration"
            | "declaration"
            | "property_declaration"
            | "using_declaration"
                if parts.list.len() > parts.kind(&["modifiers", "modifier"]).map_or(0, |_| 1) =>
            {
                return Some(self.variables(at, parts));
            }
            "variable_declarator"
            | "init_declarator"
            | "property_element"
            | "const_element"
            | "resource"
            | "static_variable_declaration"
            | "field_definition"
            | "public_field_definition" => {
                let target = parts.field(&["name", "declarator", "property"]).or(parts.first())?;
                let last = parts.list.last().filter(|part| part.field.is_empty() && part.id != target);
                let value = parts.field(&["value", "default_value"]).or(last.map(|part| part.id));
                let kind = parts.field(&["type"]).and_then(|id| self.kind_of_value(id));
                let kids = vec![self.or_missing(kind, at), target, self.or_missing(value, at)];
                self.add(Kind::Let, "", at.clone(), kids)
            }
            "array_declarator" => self.add(Kind::Index, "", at.clone(), parts.ids()),
            "pointer_declarator"
            | "reference_declarator"
            | "parenthesized_declarator"
            | "attributed_declarator"
            | "pointer_type_declarator"
            | "variadic_declarator" => return Some(parts.last().into_iter().collect()),
            // A function's name and parameters; its type and body stand around them.
            "function_declarator" => {
                let name = self.word(parts.field(&["declarator"])?);
                self.function(at, name, None, parts)
            }
            "abstract_function_declarator" => parts.field(&["parameters"])?,

            "function_declaration"
            | "function_expression"
            | "generator_function"
            | "generator_function_declaration"
            | "arrow_function"
            | "method_definition"
            | "method_declaration"
            | "constructor_declaration"
            | "local_function_statement"
            | "lambda_expression"
            | "lambda"
            | "anonymous_method_expression"
            | "anonymous_function"
            | "function_definition"
            | "operator_declaration"
            | "destructor_declaration"
            | "accessor_declaration"
            | "compact_constructor_declaration"
            | "property_hook"
            | "function_signature"
            | "method_signature"
            | "abstract_method_signature"
            | "annotation_type_element_declaration" => {
                let declared = parts.field(&["declarator"]).filter(|&id| self.is(id, Kind::Function));
                let name = match declared.or_else(|| parts.field(&["name"])) {
                    Some(name) if self.is(name, Kind::Function) => self.node(name).atom,
                    Some(name) if kind != "lambda" => self.word(name),
                    _ => "",
                };
                self.function(at, name, declared, parts)
            }
            "arrow_expression_clause" => return Some(vec![self.returning(parts.first()?)]),
            "formal_parameters"
            | "parameter_list"
            | "parameters"
            | "lambda_parameters"
            | "inferred_parameters"
            | "bracketed_parameter_list" => self.parameters(at, parts.ids()),
            "formal_parameter"
            | "required_parameter"
            | "optional_parameter"
            | "parameter"
            | "parameter_declaration"
            | "optional_parameter_declaration"
            | "variadic_parameter_declaration"
            | "spread_parameter"
            | "simple_parameter"
            | "variadic_parameter"
            | "property_promotion_parameter"
            | "default_parameter"
            | "typed_parameter"
            | "typed_default_parameter"
            | "assignment_pattern"
            | "catch_formal_parameter"
            | "catch_declaration" => self.parameter(at, parts),
            "implicit_parameter" => {
                let name = self.leaf(Kind::Name, text, at, parts);
                self.parameters(at, vec![name])
            }

            "attribute_list" | "attribute_group" | "modifiers" => return Some(parts.ids()),
            "attribute" | "annotation" | "marker_annotation" => {
                let arguments = parts.kind(&["attribute_argument_list", "annotation_argument_list", "arguments"]);
                let kids = arguments.map(|id| self.contents(id)).unwrap_or_default();
                let name = self.word(parts.first()?);
                self.add(Kind::Attribute, name, at.clone(), kids)
            }

            "class_declaration"
            | "abstract_class_declaration"
            | "class"
            | "class_specifier"
            | "struct_specifier"
            | "union_specifier"
            | "enum_specifier"
            | "class_definition"
            | "interface_declaration"
            | "struct_declaration"
            | "record_declaration"
            | "enum_declaration"
            | "trait_declaration"
            | "annotation_type_declaration" => self.class(at, parts)?,
            "base_list"
            | "class_heritage"
            | "superclass"
            | "super_interfaces"
            | "extends_interfaces"
            | "base_class_clause"
            | "base_clause"
            | "class_interface_clause"
            | "type_list" => self.add(Kind::Bases, "", at.clone(), parts.ids()),
            _ => return None,
        };
        Some(vec![one])
    }

    /// One `Let` for each variable, after a class that is declared with them.
    fn variables(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Vec<Id> {
        let mut all = Vec::new();
        let kind = match parts.field(&["type"]) {
            Some(id) if self.is(id, Kind::Class) => {
                all.push(id);
                None
            }
            Some(id) => self.kind_of_value(id),
            None => None,
        };
        let value = parts.field(&["default_value", "value"]);
        let declared = |part: &&Part<'_>| {
            !matches!(part.field, "type" | "kind" | "default_value" | "value" | "accessors")
                && !matches!(
                    part.kind,
                    "modifier" | "storage_class_specifier" | "type_qualifier" | "visibility_modifier"
                )
        };
        for part in parts.list.iter().filter(declared) {
            match self.node(part.id).kind {
                Kind::Let => {
                    if let Some(kind) = kind {
                        self.nodes[part.id as usize].kids[0] = kind;
                    }
                    self.nodes[part.id as usize].start = at.start;
                    all.push(part.id);
                }
                Kind::Name | Kind::Index | Kind::Member | Kind::Ellipsis => {
                    let kids = vec![self.or_missing(kind, at), part.id, self.or_missing(value, at)];
                    all.push(self.add(Kind::Let, "", at.clone(), kids));
                }
                Kind::Missing | Kind::Attribute => {}
                _ => all.push(part.id),
            }
        }
        all.extend(parts.field(&["accessors"]));
        all
    }

    /// `declared` has the parameters where these do not stand in the function itself.
    fn function(&mut self, at: &Range<usize>, name: &'s str, declared: Option<Id>, parts: &Parts<'_, 's>) -> Id {
        let modifiers: Vec<Id> = self.modifiers(parts);
        let modifiers = self.add(Kind::Modifiers, "", at.start..at.start, modifiers);
        let kind = parts.field(&["type", "returns"]).and_then(|id| self.kind_of_value(id));
        let kind = self.or_missing(kind, at);
        let given = match declared {
            Some(id) => self.contents(id).get(2).copied(),
            None => parts.field(&["parameters", "parameter", "declarator"]),
        };
        let parameters = match given {
            Some(id) if self.is(id, Kind::Parameters) => id,
            // `x => ..`
            Some(id) if parts.field(&["declarator"]) != Some(id) => self.parameters(at, vec![id]),
            _ => self.parameters(at, Vec::new()),
        };
        let body = parts.field(&["body"]).or_else(|| parts.kind(&["block"]));
        let body = match body {
            Some(id) if matches!(self.node(id).kind, Kind::Block) => id,
            Some(id) => self.returning(id),
            None => self.missing(at.end),
        };
        self.add(Kind::Function, name, at.clone(), vec![modifiers, kind, parameters, body])
    }

    /// A value as the block of a function that is no more than it.
    fn returning(&mut self, value: Id) -> Id {
        let span = self.node(value).start..self.node(value).end;
        let result = self.add(Kind::Return, "", span.clone(), vec![value]);
        self.add(Kind::Block, "", span, vec![result])
    }

    fn modifiers(&self, parts: &Parts<'_, 's>) -> Vec<Id> {
        let modifies = |part: &&Part<'_>| part.kind == "modifier" || self.is(part.id, Kind::Attribute);
        parts.list.iter().filter(modifies).map(|part| part.id).collect()
    }

    fn parameters(&mut self, at: &Range<usize>, ids: Vec<Id>) -> Id {
        let mut kids = Vec::new();
        for id in ids {
            let node = self.node(id);
            let span = node.start..node.end;
            match node.kind {
                Kind::Parameter | Kind::Ellipsis => kids.push(id),
                Kind::Attribute | Kind::Missing => {}
                _ => {
                    let inner = match (node.kind, node.kids.first()) {
                        // `*rest`
                        (Kind::Unary, Some(&inner)) => inner,
                        _ => id,
                    };
                    let name = match self.is(inner, Kind::Name) {
                        true => self.word(inner),
                        false => "",
                    };
                    let none = (self.missing(span.start), self.missing(span.end));
                    kids.push(self.add(Kind::Parameter, name, span, vec![none.0, none.1]));
                }
            }
        }
        self.add(Kind::Parameters, "", at.clone(), kids)
    }

    fn parameter(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Id {
        let kind = parts.field(&["type"]).or_else(|| parts.kind(&["catch_type", "type_identifier"]));
        let default = parts.field(&["value", "default_value", "right"]);
        let rest = parts.list.iter().rfind(|part| part.field.is_empty() && Some(part.id) != kind).map(|part| part.id);
        let name = parts.field(&["name", "declarator", "left", "pattern"]).or(rest);
        let mut word = "";
        let mut open = name;
        while let Some(id) = open {
            let node = self.node(id);
            match node.kind {
                Kind::Name | Kind::Function => word = node.atom,
                Kind::Unary | Kind::Index => {
                    open = node.kids.first().copied();
                    continue;
                }
                Kind::Let => {
                    open = node.kids.get(1).copied();
                    continue;
                }
                _ => {}
            }
            break;
        }
        if let Some(name) = name {
            self.remove(name);
        }
        // C#'s default has no role of its own.
        let default = default.or_else(|| match self.language {
            Language::CSharp => parts.list.iter().rfind(|p| p.field.is_empty() && p.kind != "modifier").map(|p| p.id),
            _ => None,
        });
        let kind = kind.and_then(|id| self.kind_of_value(id));
        let default = default.filter(|&id| !matches!(self.node(id).kind, Kind::Missing | Kind::Attribute));
        let kids = vec![self.or_missing(kind, at), self.or_missing(default, at)];
        self.add(Kind::Parameter, word, at.clone(), kids)
    }

    fn class(&mut self, at: &Range<usize>, parts: &Parts<'_, 's>) -> Option<Id> {
        let modifiers = self.modifiers(parts);
        let modifiers = self.add(Kind::Modifiers, "", at.start..at.start, modifiers);
        let mut bases = Vec::new();
        for part in &parts.list {
            if self.is(part.id, Kind::Bases) || part.field == "superclasses" {
                bases.extend(self.contents(part.id));
            }
        }
        let bases = self.add(Kind::Bases, "", at.start..at.start, bases);
        let name = match parts.field(&["name"]) {
            Some(name) => self.word(name),
            None => "",
        };
        let body = parts.field(&["body"]);
        let body = match body {
            Some(id) if self.is(id, Kind::Block) => id,
            Some(id) => self.add(Kind::Block, "", at.clone(), vec![id]),
            None => self.add(Kind::Block, "", at.end..at.end, Vec::new()),
        };
        Some(self.add(Kind::Class, name, at.clone(), vec![modifiers, bases, body]))
    }
}

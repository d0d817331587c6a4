//! A template as a tree.

use super::Format;
use super::expression::{self, Call, Expression};
use super::lexer::{self, Kind, Tag, Token};
use std::collections::BTreeSet;
use stockade_guest::{Error, Result};

/// Most bytes of a template.
pub const MAX_TEMPLATE_BYTES: usize = 256 << 10;
/// Most blocks inside of each other.
const MAX_DEPTH: usize = 32;
/// What dotprompt's blocks can be beside a path.
const BLOCKS: [(&str, usize); 6] =
    [("if", 1), ("unless", 1), ("each", 1), ("with", 1), ("ifEquals", 2), ("unlessEquals", 2)];
/// What puts something in beside a path.
const HELPERS: [(&str, usize); 4] = [("json", 1), ("role", 1), ("history", 0), ("media", 0)];

#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    pub nodes: Vec<Node>,
    /// Names of the templates that it includes.
    pub includes: BTreeSet<String>,
    /// Variables that it takes from the outermost context; what a block may shadow is not told apart.
    pub names: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Text(String),
    Value {
        call: Call,
        escape: bool,
    },
    Block {
        call: Call,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Partial {
        name: String,
        context: Option<Expression>,
        fields: Vec<(String, Expression)>,
        /// Put in front of each of its lines.
        indent: String,
    },
}

pub fn parse(format: Format, source: &str) -> Result<Template> {
    if source.len() > MAX_TEMPLATE_BYTES {
        return Err(Error::TooLarge(format!("{MAX_TEMPLATE_BYTES} bytes a template")));
    }
    let template = Template { nodes: Vec::new(), includes: BTreeSet::new(), names: BTreeSet::new() };
    let mut parser = Parser { format, tokens: lexer::lex(format, source)?.into_iter(), template };
    let (nodes, end) = parser.nodes(0)?;
    match end {
        End::Source => Ok(Template { nodes, ..parser.template }),
        End::Close(name) => Err(Error::Invalid(format!("`{{{{/{name}}}}}` closes no block"))),
        End::Else(_) => Err(Error::Invalid("`{{else}}` stands in no block".into())),
    }
}

struct Parser {
    format: Format,
    tokens: std::vec::IntoIter<Token>,
    template: Template,
}

/// What ends a run of nodes.
enum End {
    Source,
    Close(String),
    /// The block's other branch, which may be a block itself.
    Else(Option<String>),
}

impl Parser {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, End)> {
        if depth > MAX_DEPTH {
            return Err(Error::TooLarge(format!("{MAX_DEPTH} blocks inside of each other")));
        }
        let mut nodes = Vec::new();
        while let Some(token) = self.tokens.next() {
            let tag = match token {
                Token::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Token::Tag(tag) => tag,
            };
            let handlebars = self.format == Format::Dotprompt;
            match tag.kind {
                Kind::Silent => {}
                Kind::Close => return Ok((nodes, End::Close(tag.content))),
                Kind::Value if handlebars && lexer::is_else(&tag.content) => {
                    let chained = tag.content["else".len()..].trim();
                    return Ok((nodes, End::Else((!chained.is_empty()).then(|| chained.into()))));
                }
                Kind::Inverse if handlebars && tag.content.is_empty() => return Ok((nodes, End::Else(None))),
                Kind::Value | Kind::Raw => {
                    let call = self.call(&tag.content, &HELPERS)?;
                    let escape = tag.kind == Kind::Value && self.format == Format::Mustache;
                    nodes.push(Node::Value { call, escape });
                }
                Kind::Open => nodes.push(self.block(&tag.content, None, depth)?),
                Kind::Inverse => {
                    let call = self.call(&tag.content, &[])?;
                    let (otherwise, end) = self.nodes(depth + 1)?;
                    closed(&tag.content, &end)?;
                    nodes.push(Node::Block { call, body: Vec::new(), otherwise });
                }
                Kind::Partial => nodes.push(self.partial(tag)?),
            }
        }
        Ok((nodes, End::Source))
    }

    /// A block up to its end. `closing` names the tag that ends a chain of `else`.
    fn block(&mut self, content: &str, closing: Option<&str>, depth: usize) -> Result<Node> {
        let call = self.call(content, &BLOCKS)?;
        let own = content.split_whitespace().next().unwrap_or_default();
        let closing = closing.unwrap_or(own);
        let (body, end) = self.nodes(depth + 1)?;
        let otherwise = match end {
            End::Else(None) => {
                let (otherwise, end) = self.nodes(depth + 1)?;
                closed(closing, &end)?;
                otherwise
            }
            End::Else(Some(chained)) => vec![self.block(&chained, Some(closing), depth + 1)?],
            end => {
                closed(closing, &end)?;
                Vec::new()
            }
        };
        Ok(Node::Block { call, body, otherwise })
    }

    fn partial(&mut self, tag: Tag) -> Result<Node> {
        let (name, context, fields) = match self.format {
            Format::Dotprompt => {
                let (name, rest) =
                    tag.content.split_at(tag.content.find(char::is_whitespace).unwrap_or(tag.content.len()));
                // The name is no expression: it may have an `@` in it.
                let call = expression::parse(self.format, &format!("this {rest}"))?;
                for path in call.arguments.iter().chain(call.fields.iter().map(|(_, e)| e)) {
                    self.note(path);
                }
                (name.to_string(), call.arguments.into_iter().next(), call.fields)
            }
            _ => (tag.content, None, Vec::new()),
        };
        if name.is_empty() || name.len() > 256 || name.contains(char::is_whitespace) {
            return Err(Error::Invalid("a partial has no name".into()));
        }
        if name.starts_with('*') {
            return Err(Error::Invalid(format!("partial `{name}`: which one it is has to be known beforehand")));
        }
        self.template.includes.insert(name.clone());
        Ok(Node::Partial { name, context, fields, indent: tag.indent })
    }

    fn call(&mut self, content: &str, helpers: &[(&str, usize)]) -> Result<Call> {
        let call = expression::parse(self.format, content)?;
        let helper = helpers.iter().find(|(name, _)| self.format == Format::Dotprompt && call.name() == Some(*name));
        let has_arguments = !call.arguments.is_empty() || !call.fields.is_empty();
        match helper {
            // A variable may have a helper's name, as long as it looks like none.
            Some((_, arguments)) if call.arguments.len() == *arguments || has_arguments => {
                if call.arguments.len() < *arguments {
                    return Err(Error::Invalid(format!("`{{{{{content}}}}}` needs {arguments} arguments")));
                }
            }
            _ if has_arguments => {
                return Err(Error::Invalid(format!("`{{{{{content}}}}}`: there is no such helper")));
            }
            _ => self.note(&call.head),
        }
        for path in call.arguments.iter().chain(call.fields.iter().map(|(_, e)| e)) {
            self.note(path);
        }
        Ok(call)
    }

    fn note(&mut self, expression: &Expression) {
        if let Expression::Path(path) = expression
            && let (false, Some(name)) = (path.is_data, path.segments.first())
        {
            self.template.names.insert(name.clone());
        }
    }
}

fn closed(name: &str, end: &End) -> Result<()> {
    match end {
        End::Close(found) if found == name => Ok(()),
        End::Close(found) => Err(Error::Invalid(format!("`{{{{/{found}}}}}` closes `{{{{#{name}}}}}`"))),
        _ => Err(Error::Invalid(format!("`{{{{#{name}}}}}` is not closed"))),
    }
}

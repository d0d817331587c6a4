//! Texts that stand in fields, as one text for the shields: names first, then each text in lines of its own.
//!
//! One text of all fields and not a text for each: a shield that asks a model is asked once, and what only adds up across fields
//! is seen.

use serde_json::{Map, Value};
use stockade_core::chat::{Message, ToolSpec};

/// The texts of fields, to be judged and put back.
pub struct Sheet<'a> {
    /// Lines of names. They say what fields mean, so nothing can take their place.
    names: usize,
    fields: Vec<&'a mut String>,
    text: String,
}

/// A tool of the client's: its name and the names in its schema; its description and the texts in its schema.
pub fn of_tool(tool: &mut ToolSpec) -> Sheet<'_> {
    let mut gathered = Gathered::default();
    gathered.name(&tool.name);
    gathered.fields.push(&mut tool.description);
    gathered.value(&mut tool.parameters);
    gathered.sheet()
}

/// The names that speakers go by.
pub fn of_speakers(messages: &mut [Message]) -> Sheet<'_> {
    let mut gathered = Gathered::default();
    gathered.fields.extend(messages.iter_mut().filter_map(|message| message.name.as_mut()));
    gathered.sheet()
}

pub fn of_fields(fields: &mut Map<String, Value>) -> Sheet<'_> {
    let mut gathered = Gathered::default();
    gathered.object(fields);
    gathered.sheet()
}

impl Sheet<'_> {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Puts masked texts back; false when a name has changed, or the text has other lines than before.
    #[must_use]
    pub fn take(self, judged: &str) -> bool {
        if judged == self.text {
            return true;
        }
        let (before, after): (Vec<&str>, Vec<&str>) = (lines(&self.text), lines(judged));
        if before.len() != after.len() || before[..self.names] != after[..self.names] {
            return false;
        }
        let mut at = self.names;
        for field in self.fields {
            let end = at + lines(field).len();
            *field = after[at..end].join("\n");
            at = end;
        }
        true
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.split('\n').collect()
}

/// What a sheet is made of.
#[derive(Default)]
struct Gathered<'a> {
    names: String,
    fields: Vec<&'a mut String>,
}

impl<'a> Gathered<'a> {
    fn name(&mut self, name: &str) {
        self.names.push_str(name);
        self.names.push('\n');
    }

    /// Recursion is as deep as the JSON, which its parser bounds.
    fn value(&mut self, value: &'a mut Value) {
        match value {
            Value::String(text) => self.fields.push(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => self.object(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn object(&mut self, fields: &'a mut Map<String, Value>) {
        for (name, value) in fields {
            self.name(name);
            self.value(value);
        }
    }

    fn sheet(self) -> Sheet<'a> {
        let texts: Vec<&str> = self.fields.iter().map(|field| field.as_str()).collect();
        let names = self.names.matches('\n').count();
        let text = self.names + &texts.join("\n");
        Sheet { names, fields: self.fields, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool() -> ToolSpec {
        ToolSpec {
            name: "find".into(),
            description: "Finds\nthings.".into(),
            parameters: json!({"type": "object", "properties": {"of": {"enum": ["ann", 7]}}}),
        }
    }

    #[test]
    fn masked_texts_go_back_where_they_came_from() {
        let mut tool = tool();
        let sheet = of_tool(&mut tool);
        assert_eq!(sheet.text(), "find\ntype\nproperties\nof\nenum\nFinds\nthings.\nobject\nann");
        let judged = sheet.text().replace("ann", "***").replace("things", "stuff");
        assert!(sheet.take(&judged));
        let parameters = json!({"type": "object", "properties": {"of": {"enum": ["***", 7]}}});
        assert_eq!((&*tool.description, &tool.parameters), ("Finds\nstuff.", &parameters));
    }

    #[test]
    fn names_and_lines_cannot_be_masked() {
        for (from, to) in [("properties", "***"), ("find", "***"), ("things.\nobject", "***"), ("ann", "a\nnn")] {
            let mut masked = tool();
            let sheet = of_tool(&mut masked);
            let judged = sheet.text().replace(from, to);
            assert!(!sheet.take(&judged), "{from}");
            assert_eq!(masked, tool(), "{from}");
        }
    }

    #[test]
    fn fields_without_names_are_an_empty_sheet() {
        let mut none = Map::new();
        assert!(of_fields(&mut none).text().is_empty());
        let mut some = json!({"who": "ann", "n": 1}).as_object().unwrap().clone();
        let sheet = of_fields(&mut some);
        assert_eq!(sheet.text(), "who\nn\nann");
        assert!(sheet.take("who\nn\n***"));
        assert_eq!(some["who"], "***");
    }
}

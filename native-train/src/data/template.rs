//! How an item's text is made from its fields: a template, or columns one after the other.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::values::{flat, sentences};

/// The field that every item has, whatever its source calls it: as `items.jsonl` and new items do.
pub const ID: &str = "id";

/// The content features of the TIGER paper (section 4): title, price, brand, category.
pub const PAPER: &str = "[{title}. ][Price: {price}. ][Brand: {brand}. ][Category: {categories}.]";

/// What made the items' texts; kept in `dataset.json`, so that later items get theirs alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextRecipe {
    /// A template filled in.
    Template(Template),
    /// The values of these fields, a sentence each.
    Columns(Vec<String>),
}

impl TextRecipe {
    /// A recipe of columns.
    pub fn columns(names: &[&str]) -> Self {
        Self::Columns(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// The same for items whose source calls the id `column`: new items do not know that name.
    #[must_use]
    pub fn with_id_column(self, column: &str) -> Self {
        let renamed = |name: String| if name == column { ID.to_owned() } else { name };
        match self {
            Self::Template(template) => Self::Template(template.with_id_field(column)),
            Self::Columns(names) => Self::Columns(names.into_iter().map(renamed).collect()),
        }
    }

    /// The text of an item; empty where it has none of the fields. [`ID`] is the item's id, even where
    /// its source has another field of that name.
    pub fn text(&self, id: &str, fields: &Map<String, Value>) -> String {
        let value = |name: &str| match name {
            ID => id.to_owned(),
            name => fields.get(name).map(flat).unwrap_or_default().trim().to_owned(),
        };
        match self {
            Self::Template(template) => template.fill(value),
            Self::Columns(names) => sentences(names.iter().map(|name| value(name))),
        }
    }

    /// The fields that it reads.
    pub fn fields(&self) -> Vec<&str> {
        match self {
            Self::Template(template) => template.fields().collect(),
            Self::Columns(names) => names.iter().map(String::as_str).collect(),
        }
    }
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

/// Text with `{field}` in it; what stands between `[` and `]` is left out where a field in it is
/// missing or empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    /// As the user wrote it.
    source: String,
    /// Clauses, and whether each is optional.
    clauses: Vec<(bool, Vec<Part>)>,
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.source
    }
}

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut clauses: Vec<(bool, Vec<Part>)> = vec![(false, Vec::new())];
        let mut literal = String::new();
        let mut rest = text.chars();
        fn flush(literal: &mut String, clauses: &mut [(bool, Vec<Part>)]) {
            if let (false, Some((_, parts))) = (literal.is_empty(), clauses.last_mut()) {
                parts.push(Part::Text(std::mem::take(literal)));
            }
        }
        while let Some(c) = rest.next() {
            let optional = clauses.last().is_some_and(|(optional, _)| *optional);
            match c {
                '[' if optional => {
                    return Err("\"[\" inside \"[\"; close the first by \"]\"".into());
                }
                ']' if !optional => return Err("\"]\" without \"[\" before it".into()),
                '[' | ']' => {
                    flush(&mut literal, &mut clauses);
                    clauses.push((c == '[', Vec::new()));
                }
                '{' => {
                    flush(&mut literal, &mut clauses);
                    let Some((name, behind)) = rest.as_str().split_once('}') else {
                        return Err(format!("\"{{{}\" has no \"}}\" after it", rest.as_str()));
                    };
                    rest = behind.chars();
                    if name.is_empty() || name.contains(['{', '[', ']']) {
                        return Err("\"{\" must be followed by a field's name and \"}\"".into());
                    }
                    if let Some((_, parts)) = clauses.last_mut() {
                        parts.push(Part::Field(name.to_owned()));
                    }
                }
                other => literal.push(other),
            }
        }
        if clauses.last().is_some_and(|(optional, _)| *optional) {
            return Err("\"[\" without \"]\" after it".into());
        }
        flush(&mut literal, &mut clauses);
        let template = Self { source: text.to_owned(), clauses };
        if template.fields().next().is_none() {
            return Err("names no field; write one as {title}".into());
        }
        Ok(template)
    }
}

impl Template {
    /// The fields that it names.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.clauses.iter().flat_map(|(_, parts)| parts).filter_map(|part| match part {
            Part::Field(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The same with [`ID`] in place of a field.
    fn with_id_field(mut self, field: &str) -> Self {
        // A brace begins a field and nothing else.
        self.source = self.source.replace(&format!("{{{field}}}"), &format!("{{{ID}}}"));
        for part in self.clauses.iter_mut().flat_map(|(_, parts)| parts) {
            if matches!(part, Part::Field(name) if name == field) {
                *part = Part::Field(ID.to_owned());
            }
        }
        self
    }

    /// The text of an item whose fields have these values, empty where they are missing; empty where
    /// all are.
    fn fill(&self, value: impl Fn(&str) -> String) -> String {
        let mut text = String::new();
        let mut any = false;
        for (optional, parts) in &self.clauses {
            let mut clause = String::new();
            let mut missing = false;
            for part in parts {
                match part {
                    Part::Text(literal) => clause += literal,
                    Part::Field(name) => {
                        let value = value(name);
                        missing |= value.is_empty();
                        any |= !value.is_empty();
                        clause += &value;
                    }
                }
            }
            if !(*optional && missing) {
                text += &clause;
            }
        }
        if any { text.trim().to_owned() } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(template: &str, fields: Value) -> String {
        let Value::Object(fields) = fields else { panic!("an object") };
        TextRecipe::Template(template.parse().unwrap()).text("i1", &fields)
    }

    #[test]
    fn clauses_of_missing_fields_are_left_out() {
        let all = json!({"title": "Kettle", "price": 12.5, "brand": "Nan",
                         "categories": [["Home", "Kitchen"]]});
        assert_eq!(fill(PAPER, all), "Kettle. Price: 12.5. Brand: Nan. Category: Home, Kitchen.");
        assert_eq!(fill(PAPER, json!({"title": "Kettle", "brand": " "})), "Kettle.");
        assert_eq!(fill("{title} by {author}", json!({"title": "Emma"})), "Emma by");
        assert_eq!(fill("A book: {title}", json!({"other": 1})), "");
    }

    #[test]
    fn the_id_is_a_field_whatever_its_source_calls_it() {
        let Value::Object(fields) = json!({"id": "another", "title": "Kettle"}) else { panic!() };
        for (recipe, renamed) in [
            (
                TextRecipe::Template("[{title}: ][{sku}][ {skus}]".parse().unwrap()),
                json!({"template": "[{title}: ][{id}][ {skus}]"}),
            ),
            (TextRecipe::columns(&["title", "sku"]), json!({"columns": ["title", "id"]})),
        ] {
            let recipe = recipe.with_id_column("sku");
            assert_eq!(serde_json::to_value(&recipe).unwrap(), renamed);
            let read: TextRecipe = serde_json::from_value(renamed).unwrap();
            assert_eq!(read, recipe);
            let expected = ["Kettle: i1", "Kettle. i1."];
            assert!(expected.contains(&recipe.text("i1", &fields).as_str()), "{recipe:?}");
        }
    }

    #[test]
    fn recipes_come_back_from_json_and_make_the_same_text() {
        let fields = json!({"title": "Kettle", "price": 12.5, "brand": null});
        let Value::Object(fields) = fields else { panic!("an object") };
        for (recipe, json, text) in [
            (
                TextRecipe::Template(PAPER.parse().unwrap()),
                json!({"template": PAPER}),
                "Kettle. Price: 12.5.",
            ),
            (
                TextRecipe::columns(&["price", "brand", "title"]),
                json!({"columns": ["price", "brand", "title"]}),
                "12.5. Kettle.",
            ),
        ] {
            assert_eq!(serde_json::to_value(&recipe).unwrap(), json);
            let read: TextRecipe = serde_json::from_value(json).unwrap();
            assert_eq!((read.text("i1", &fields).as_str(), &read), (text, &recipe));
        }
        assert!(serde_json::from_value::<TextRecipe>(json!({"template": "{"})).is_err());
    }

    #[test]
    fn wrong_templates_are_refused_with_a_reason() {
        for (template, reason) in [
            ("title", "names no field"),
            ("[{a}", "without \"]\""),
            ("{a}]", "without \"[\""),
            ("[[{a}]]", "inside"),
            ("{}", "followed by a field's name"),
            ("{a[b}", "followed by a field's name"),
            ("{a} {title", "\"{title\" has no \"}\""),
            ("[{a}. ][{b]", "\"{b]\" has no \"}\""),
        ] {
            let error = template.parse::<Template>().unwrap_err();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
    }
}

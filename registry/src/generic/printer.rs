//! How the objects of a kind are printed as rows of a Table.

use jiff::Timestamp;
use serde_json::Value;
use umbra_apimachinery::age;
use umbra_apimachinery::table::ColumnDefinition;

/// Prints objects of one kind.
pub trait Printer: Send + Sync {
    /// The columns, in order.
    fn columns(&self) -> Vec<ColumnDefinition>;

    /// One value a column of [`Printer::columns`]; ages are as of `now`.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}

/// `Name` and `Created At`: what kube-apiserver prints of kinds that say nothing themselves
/// (`k8s.io/apiserver/pkg/registry/rest/table.go`).
#[derive(Debug, Clone, Copy, Default)]
pub struct DefaultPrinter;

impl Printer for DefaultPrinter {
    fn columns(&self) -> Vec<ColumnDefinition> {
        vec![
            ColumnDefinition::name(),
            ColumnDefinition::string("Created At", "When the object was created, RFC 3339.").of_type("date"),
        ]
    }

    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let metadata = &object["metadata"];
        vec![metadata["name"].clone(), metadata["creationTimestamp"].clone()]
    }
}

/// The columns that a CustomResourceDefinition asks for, after the name.
#[derive(Debug, Clone, Default)]
pub struct PathPrinter {
    columns: Vec<(ColumnDefinition, JsonPath)>,
}

impl PathPrinter {
    /// Prints these columns; without any, the age (as for a CustomResourceDefinition without
    /// `additionalPrinterColumns`).
    #[must_use]
    pub fn new(columns: impl IntoIterator<Item = (ColumnDefinition, JsonPath)>) -> Self {
        let mut columns: Vec<_> = columns.into_iter().collect();
        if columns.is_empty() {
            let age = ColumnDefinition::age().of_type("date");
            columns.push((age, JsonPath::parse(".metadata.creationTimestamp")));
        }
        Self { columns }
    }
}

impl Printer for PathPrinter {
    fn columns(&self) -> Vec<ColumnDefinition> {
        let columns = self.columns.iter().map(|(column, _)| column.clone());
        std::iter::once(ColumnDefinition::name()).chain(columns).collect()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cells = self.columns.iter().map(|(column, path)| {
            let found = path.first(object);
            match column.column_type.as_str() {
                "date" => found
                    .and_then(Value::as_str)
                    .and_then(age::parse)
                    .map_or(Value::Null, |time| age::human_duration(time, now).into()),
                "integer" => found.and_then(Value::as_i64).map_or(Value::Null, Into::into),
                "number" => found.and_then(Value::as_f64).map_or(Value::Null, Into::into),
                "boolean" => found.and_then(Value::as_bool).map_or(Value::Null, Into::into),
                _ => found.map_or(Value::Null, as_text),
            }
        });
        std::iter::once(object["metadata"]["name"].clone())
            .chain(cells)
            .collect()
    }
}

fn as_text(value: &Value) -> Value {
    match value {
        Value::String(_) => value.clone(),
        other => other.to_string().into(),
    }
}

/// The part of JSONPath that printer columns use: fields, indices, `[*]`, and `[?(@.field=="value")]`.
///
/// Deviation: recursive descent, slices and unions are not read; such a path finds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JsonPath {
    steps: Option<Vec<Step>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    Where(Vec<String>, String),
}

impl JsonPath {
    /// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let text = text.trim().trim_start_matches('{').trim_end_matches('}');
        Self {
            steps: parse_steps(text.strip_prefix('$').unwrap_or(text)),
        }
    }

    /// The first value at the path.
    #[must_use]
    pub fn first<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        let mut found = vec![object];
        for step in self.steps.as_deref()? {
            found = found.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        found.first().copied().filter(|value| !value.is_null())
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => value.get(index).into_iter().collect(),
            Self::All => match value {
                Value::Array(items) => items.iter().collect(),
                Value::Object(fields) => fields.values().collect(),
                _ => Vec::new(),
            },
            Self::Where(path, wanted) => value
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| {
                    let found = path.iter().try_fold(*item, |item, name| item.get(name));
                    found.is_some_and(|found| is_written(found, wanted))
                })
                .collect(),
        }
    }
}

/// Whether a filter's value is this one: a string as it is, anything else as JSON.
fn is_written(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        other => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *other),
    }
}

fn parse_steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = field_name(after)?;
            steps.push(Step::Field(name));
            rest = after;
        } else {
            let (inside, after) = bracketed(rest.strip_prefix('[')?)?;
            steps.push(bracket_step(inside)?);
            rest = after;
        }
    }
    Some(steps)
}

/// A field name up to the next dot or bracket; `\.` is a dot that belongs to the name.
fn field_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => name.push(characters.next()?.1),
            '.' | '[' if !name.is_empty() => return Some((name, &text[index..])),
            '.' => return None,
            other => name.push(other),
        }
    }
    (!name.is_empty()).then_some((name, ""))
}

/// What stands before the closing bracket, which may occur inside quotes, and what follows it.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (index, character) in text.char_indices() {
        match (character, quote) {
            (']', None) => return Some((&text[..index], &text[index + 1..])),
            ('"' | '\'', None) => quote = Some(character),
            (one, Some(open)) if one == open => quote = None,
            _ => {}
        }
    }
    None
}

fn bracket_step(inside: &str) -> Option<Step> {
    let inside = inside.trim();
    if inside == "*" {
        return Some(Step::All);
    }
    if let Ok(index) = inside.parse() {
        return Some(Step::Index(index));
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (path, wanted) = filter.split_once("==")?;
        let path = path.trim().strip_prefix("@.")?;
        let path = path.split('.').map(str::to_owned).collect();
        return Some(Step::Where(path, unquoted(wanted.trim()).to_owned()));
    }
    let name = unquoted(inside);
    (name.len() < inside.len()).then(|| Step::Field(name.to_owned()))
}

fn unquoted(text: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_printer_columns_ask_for() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "label"}},
            "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, want) in [
            (r#".status.conditions[?(@.type=="Ready")].status"#, Some("True")),
            (".status.conditions[0].type", Some("Synced")),
            (".status.conditions[*].type", Some("Synced")),
            (r".metadata.labels.a\.b/c", Some("label")),
            (".metadata.labels['a.b/c']", Some("label")),
            (".status.conditions[7].type", None),
            (".spec.absent", None),
            ("..status", None),
        ] {
            assert_eq!(
                JsonPath::parse(path).first(&object).and_then(Value::as_str),
                want,
                "{path}"
            );
        }
    }

    #[test]
    fn columns_without_a_value_print_null() {
        let column = |name: &str, of: &str| ColumnDefinition::string(name, "").of_type(of);
        let printer = PathPrinter::new([
            (column("Replicas", "integer"), JsonPath::parse(".spec.replicas")),
            (column("Since", "date"), JsonPath::parse(".metadata.creationTimestamp")),
        ]);
        let now = age::parse("2026-01-01T00:01:00Z").unwrap();
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(printer.cells(&object, now), [json!("a"), Value::Null, json!("60s")]);
        assert_eq!(printer.columns().len(), 3);
    }
}

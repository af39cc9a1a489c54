//! Variables in the values of patches: `${cluster.name}`, `${cluster.labels['region']}`.
//!
//! Strings that are values are expanded, at any depth; names of fields and the paths of operations are not. Nothing that
//! was inserted is expanded again.

use serde_json::Value;

use super::error::VariableError;
use crate::request::Cluster;

/// One piece of a string.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Literal(&'a str),
    Name,
    /// What it is looked up in, the key, and the text as written.
    Lookup(Source, &'a str, &'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Labels,
    Annotations,
    Properties,
}

/// Whether anything in `value` has to be expanded.
pub(super) fn occur_in(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::Array(elements) => elements.iter().any(occur_in),
        Value::Object(fields) => fields.values().any(occur_in),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Makes sure that all variables are of a form that is known.
pub(super) fn check(value: &Value) -> Result<(), VariableError> {
    match value {
        Value::String(text) => pieces(text).map(|_| ()),
        Value::Array(elements) => elements.iter().try_for_each(check),
        Value::Object(fields) => fields.values().try_for_each(check),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// A copy of `value` for `cluster`.
pub(super) fn expand(value: &Value, cluster: &Cluster) -> Result<Value, VariableError> {
    Ok(match value {
        Value::String(text) if text.contains("${") => Value::String(expand_text(text, cluster)?),
        Value::Array(elements) => elements
            .iter()
            .map(|element| expand(element, cluster))
            .collect::<Result<_, _>>()?,
        Value::Object(fields) => {
            let expanded = fields
                .iter()
                .map(|(name, field)| Ok((name.clone(), expand(field, cluster)?)));
            Value::Object(expanded.collect::<Result<_, VariableError>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    })
}

fn expand_text(text: &str, cluster: &Cluster) -> Result<String, VariableError> {
    let mut expanded = String::with_capacity(text.len());
    for piece in pieces(text)? {
        expanded.push_str(match piece {
            Piece::Literal(literal) => literal,
            Piece::Name => &cluster.name,
            Piece::Lookup(source, key, written) => {
                let (what, values) = match source {
                    Source::Labels => ("label", &cluster.labels),
                    Source::Annotations => ("annotation", &cluster.annotations),
                    Source::Properties => ("property", &cluster.properties),
                };
                values.get(key).ok_or_else(|| VariableError::Absent {
                    text: written.to_owned(),
                    what,
                    key: key.to_owned(),
                })?
            }
        });
    }
    Ok(expanded)
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, VariableError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(literal) = rest[..at].strip_suffix('$') {
            pieces.push(Piece::Literal(literal));
            pieces.push(Piece::Literal("${"));
            rest = &rest[at + 2..];
            continue;
        }
        pieces.push(Piece::Literal(&rest[..at]));
        let variable = &rest[at..];
        let end = variable.find('}').ok_or_else(|| VariableError::Unknown {
            text: variable.to_owned(),
        })?;
        let (variable, after) = variable.split_at(end + 1);
        pieces.push(piece(variable).ok_or_else(|| VariableError::Unknown {
            text: variable.to_owned(),
        })?);
        rest = after;
    }
    pieces.push(Piece::Literal(rest));
    Ok(pieces)
}

/// What `${...}` means.
fn piece(written: &str) -> Option<Piece<'_>> {
    let expression = written.strip_prefix("${cluster.")?.strip_suffix('}')?;
    if expression == "name" {
        return Some(Piece::Name);
    }
    let (source, key) = expression.split_once('[')?;
    let source = match source {
        "labels" => Source::Labels,
        "annotations" => Source::Annotations,
        "properties" => Source::Properties,
        _ => return None,
    };
    let key = key.strip_suffix(']')?;
    let quoted = |quote| key.strip_prefix(quote)?.strip_suffix(quote);
    let key = quoted('\'').or_else(|| quoted('"'))?;
    (!key.is_empty() && !key.contains(['\'', '"'])).then_some(Piece::Lookup(source, key, written))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn cluster() -> Cluster {
        Cluster {
            name: "east".to_owned(),
            labels: [("topology.kubernetes.io/region".to_owned(), "eu".to_owned())].into(),
            annotations: [("note".to_owned(), "${cluster.name}".to_owned())].into(),
            properties: [("zone".to_owned(), "é1".to_owned())].into(),
        }
    }

    #[test]
    fn values_are_expanded_at_any_depth_and_names_are_not() {
        let value = json!({
            "${cluster.name}": ["${cluster.name}-${cluster.labels['topology.kubernetes.io/region']}", 1, null],
            "deep": {"a": "${cluster.properties[\"zone\"]}$", "b": "$${cluster.name} $x $$ ${cluster.annotations['note']}"},
        });
        assert!(occur_in(&value));
        assert_eq!(
            expand(&value, &cluster()).unwrap(),
            json!({
                "${cluster.name}": ["east-eu", 1, null],
                "deep": {"a": "é1$", "b": "${cluster.name} $x $$ ${cluster.name}"},
            })
        );
    }

    #[test]
    fn unknown_variables_are_errors() {
        for text in [
            "${HOME}",
            "${",
            "${}",
            "${cluster.name",
            "${cluster}",
            "${cluster.labels}",
            "${cluster.labels[region]}",
            "${cluster.labels['']}",
            "${cluster.labels['a\"]}",
            "${cluster.spec['a']}",
            "${ cluster.name }",
        ] {
            let value = json!({"a": [format!("x{text}")]});
            assert!(matches!(check(&value), Err(VariableError::Unknown { .. })), "{text}");
            assert!(expand(&value, &cluster()).is_err(), "{text}");
        }
        let absent = json!("${cluster.labels['nope']}");
        assert_eq!(check(&absent), Ok(()));
        assert_eq!(
            expand(&absent, &cluster()).unwrap_err().to_string(),
            "the cluster has no label \"nope\" for \"${cluster.labels['nope']}\"; set it, or select clusters that have it"
        );
    }

    proptest! {
        #[test]
        fn escaped_text_comes_out_as_it_went_in(text in r"[a$\{\}\.']{0,12}") {
            // Every ${ that is not after another $ is escaped; then nothing is left to expand.
            prop_assume!(!text.contains("$${"));
            let escaped = text.replace("${", "$${");
            prop_assert_eq!(expand(&json!(escaped), &cluster()), Ok(json!(text)));
        }

        #[test]
        fn text_without_variables_stays(text in r"[a-z$ \}]{0,12}") {
            prop_assert_eq!(expand(&json!(text), &cluster()), Ok(json!(text)));
        }
    }
}

//! Field selectors: `metadata.name=web,status.phase!=Running` (`k8s.io/apimachinery/pkg/fields`).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Why a field selector was refused; the text is the one of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FieldSelectorError {
    /// A term has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Syntax {
        /// The whole selector.
        selector: String,
        /// The term.
        term: String,
    },
    /// A backslash stands before something else than `\`, `,` or `=`.
    #[error("invalid field selector: invalid escape sequence: {sequence}")]
    Escape {
        /// The backslash and what follows.
        sequence: String,
    },
    /// A value has a bare `=`.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*character))]
    Unescaped {
        /// The character; Go prints its number.
        character: char,
    },
    /// Objects of this resource cannot be selected by this field.
    #[error("field label not supported: {field}")]
    Unsupported {
        /// The field.
        field: String,
    },
}

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Term {
    /// The field, such as `metadata.name`.
    pub field: String,
    /// The value, unescaped.
    pub value: String,
    /// Whether the field has to equal the value, or has to differ.
    pub equals: bool,
}

/// Selects the objects for which all terms hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Selects every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects the objects whose field has that value.
    #[must_use]
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        let term = Term {
            field: field.into(),
            value: value.into(),
            equals: true,
        };
        Self { terms: vec![term] }
    }

    /// Reads the `fieldSelector` parameter of a request. The empty text selects everything.
    ///
    /// # Errors
    /// Where a term has no operator, or a value is not escaped as [`escape`] does.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut written: Vec<&str> = split_terms(text).into_iter().filter(|term| !term.is_empty()).collect();
        written.sort_unstable();
        let mut terms = Vec::with_capacity(written.len());
        for term in written {
            let (field, equals, value) = split_term(term).ok_or_else(|| FieldSelectorError::Syntax {
                selector: text.to_owned(),
                term: term.to_owned(),
            })?;
            let value = unescape(value)?;
            // `=` alone says nothing, as in Go.
            if !(field.is_empty() && value.is_empty()) {
                let field = field.to_owned();
                terms.push(Term { field, value, equals });
            }
        }
        Ok(Self { terms })
    }

    /// Whether an object with these fields is selected. An absent field is the empty string. Allocates nothing.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        let holds = |term: &Term| (field(&term.field).unwrap_or_default() == term.value) == term.equals;
        self.terms.iter().all(holds)
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// All terms.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The one value that `field` must have to be selected, where there is such a value.
    #[must_use]
    pub fn requires_exact_match(&self, field: &str) -> Option<&str> {
        let one = self.terms.iter().find(|term| term.equals && term.field == field)?;
        Some(&one.value)
    }

    /// The same selector without its terms on `field`, for who has dealt with them already.
    #[must_use]
    pub fn without(&self, field: &str) -> Self {
        let terms = self.terms.iter().filter(|term| term.field != field).cloned().collect();
        Self { terms }
    }

    /// Makes sure that objects can be selected by all the fields named.
    ///
    /// # Errors
    /// [`FieldSelectorError::Unsupported`] for the first field that `supported` does not know.
    pub fn restrict_to(&self, supported: impl Fn(&str) -> bool) -> Result<(), FieldSelectorError> {
        match self.terms.iter().find(|term| !supported(&term.field)) {
            None => Ok(()),
            Some(term) => Err(FieldSelectorError::Unsupported {
                field: term.field.clone(),
            }),
        }
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    /// As [`FieldSelector::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let operator = if term.equals { "=" } else { "!=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

/// A value as field selectors write it: `\`, `,` and `=` after a backslash.
#[must_use]
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        if matches!(character, '\\' | ',' | '=') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Splits at commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// Splits at the first operator. Fields know no escapes.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find('=')?;
    if let Some(field) = term[..at].strip_suffix('!') {
        return Some((field, false, &term[at + 1..]));
    }
    let value = &term[at + 1..];
    Some((&term[..at], true, value.strip_prefix('=').unwrap_or(value)))
}

fn unescape(text: &str) -> Result<String, FieldSelectorError> {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                other => {
                    let sequence = std::iter::once('\\').chain(other).collect();
                    return Err(FieldSelectorError::Escape { sequence });
                }
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped { character }),
            other => value.push(other),
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(selector: &str) -> bool {
        let field = |field: &str| match field {
            "metadata.name" => Some("web"),
            "status.phase" => Some("Running"),
            "odd" => Some(r"a=b,c\d"),
            _ => None,
        };
        FieldSelector::parse(selector)
            .unwrap_or_else(|error| panic!("{selector}: {error}"))
            .matches(field)
    }

    #[test]
    fn matching() {
        for selector in [
            "",
            ",",
            "=",
            "metadata.name=web",
            "metadata.name==web",
            "metadata.name!=db",
            "spec.nodeName=",
            "metadata.name=web,status.phase!=Pending",
            r"odd=a\=b\,c\\d",
        ] {
            assert!(matches(selector), "{selector}");
        }
        for selector in [
            "metadata.name=db",
            "metadata.name!=web",
            "spec.nodeName!=",
            "status.phase=Running,metadata.name=x",
        ] {
            assert!(!matches(selector), "{selector}");
        }
    }

    #[test]
    fn errors_are_those_of_kubernetes() {
        for (text, expected) in [
            ("a=1,foo", "invalid selector: 'a=1,foo'; can't understand 'foo'"),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
            (r"a=b\", r"invalid field selector: invalid escape sequence: \"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), expected);
        }
        let error = FieldSelector::parse("spec.foo=a")
            .unwrap()
            .restrict_to(|field| field == "metadata.name");
        assert_eq!(error.unwrap_err().to_string(), "field label not supported: spec.foo");
    }

    #[test]
    fn exact_matches_and_leaving_out() {
        let selector = FieldSelector::parse("metadata.name=web,status.phase!=x").unwrap();
        assert_eq!(selector.requires_exact_match("metadata.name"), Some("web"));
        assert_eq!(selector.requires_exact_match("status.phase"), None);
        assert_eq!(selector.without("metadata.name").to_string(), "status.phase!=x");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(values in proptest::collection::btree_map("[a-z.]{1,3}", (r"[a,=\\!é ]{0,4}", any::<bool>()), 0..4)) {
            let terms = values.into_iter().map(|(field, (value, equals))| Term { field, value, equals });
            let mut selector = FieldSelector { terms: terms.collect() };
            // Parsing sorts terms as they are written.
            let mut read = FieldSelector::parse(&selector.to_string()).unwrap();
            selector.terms.sort_by(|one, other| one.field.cmp(&other.field));
            read.terms.sort_by(|one, other| one.field.cmp(&other.field));
            prop_assert_eq!(read, selector);
        }

        #[test]
        fn no_text_panics(text in r"[a=!,\\]{0,10}|\PC{0,12}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}

//! Label selectors as requests carry them: `app=web,tier in (front,edge),!canary` (`k8s.io/apimachinery/pkg/labels`).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::label_parser;
use super::label_syntax::{label_key_errors, label_value_errors};
use super::quoted;

/// How a requirement relates a label to its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key in (a,b)`: present with one of the values.
    In,
    /// `key notin (a,b)`: absent, or present with another value.
    NotIn,
    /// `key=a`.
    Equals,
    /// `key==a`: the same as [`Operator::Equals`], remembered as written.
    DoubleEquals,
    /// `key!=a`: absent, or present with another value.
    NotEquals,
    /// `key`: present.
    Exists,
    /// `!key`: absent.
    DoesNotExist,
    /// `key>1`: present, an integer, and greater.
    GreaterThan,
    /// `key<1`: present, an integer, and less.
    LessThan,
}

/// Why a label selector was refused; the text is the one of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct LabelSelectorError {
    message: String,
}

impl LabelSelectorError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
    /// The value of `GreaterThan` and `LessThan`, read once.
    bound: i64,
}

impl Requirement {
    /// A valid requirement.
    ///
    /// # Errors
    /// Where the key or a value is no label key or value, or the number of values does not fit the operator
    /// (`labels.NewRequirement`).
    pub fn new(key: impl Into<String>, operator: Operator, values: Vec<String>) -> Result<Self, LabelSelectorError> {
        let key = key.into();
        let mut errors = Vec::new();
        let key_errors = label_key_errors(&key);
        if !key_errors.is_empty() {
            errors.push(format!(
                "key: Invalid value: {}: {}",
                quoted(&key),
                key_errors.join("; ")
            ));
        }
        let bound = check_values(operator, &values, &mut errors);
        for (index, value) in values.iter().enumerate() {
            let value_errors = label_value_errors(value);
            if !value_errors.is_empty() {
                let value = quoted(value);
                let problems = value_errors.join("; ");
                errors.push(format!("values[{index}][{key}]: Invalid value: {value}: {problems}"));
            }
        }
        match errors.len() {
            0 => Ok(Self {
                key,
                operator,
                values,
                bound,
            }),
            1 => Err(LabelSelectorError::new(errors.remove(0))),
            _ => Err(LabelSelectorError::new(format!("[{}]", errors.join(", ")))),
        }
    }

    /// The label's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the label relates to the values.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values; sorted and distinct where the requirement was parsed.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether the label, absent or present, meets the requirement. Allocates nothing.
    #[must_use]
    pub fn matches(&self, label: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|one| one == value);
        let integer = |value: &str| value.parse::<i64>().ok();
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => label.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => label.and_then(integer).is_some_and(|value| value > self.bound),
            Operator::LessThan => label.and_then(integer).is_some_and(|value| value < self.bound),
        }
    }
}

/// Checks how many values there are; returns the bound of an inequality.
fn check_values(operator: Operator, values: &[String], errors: &mut Vec<String>) -> i64 {
    let rule = match operator {
        Operator::In | Operator::NotIn if values.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            "exact-match compatibility requires one single value"
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            "values set must be empty for exists and does not exist"
        }
        Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
            "for 'Gt', 'Lt' operators, exactly one value is required"
        }
        Operator::GreaterThan | Operator::LessThan => {
            return values[0].parse().unwrap_or_else(|_| {
                let value = quoted(&values[0]);
                let rule = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(format!("values[0]: Invalid value: {value}: {rule}"));
                0
            });
        }
        _ => return 0,
    };
    let listed: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    errors.push(format!("values: Invalid value: [{}]: {rule}", listed.join(",")));
    0
}

impl fmt::Display for Requirement {
    /// As [`Selector::parse`] reads it; values are sorted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match self.operator {
            Operator::DoesNotExist => return write!(f, "!{key}"),
            Operator::Exists => return f.write_str(key),
            Operator::Equals => write!(f, "{key}=")?,
            Operator::DoubleEquals => write!(f, "{key}==")?,
            Operator::NotEquals => write!(f, "{key}!=")?,
            Operator::GreaterThan => write!(f, "{key}>")?,
            Operator::LessThan => write!(f, "{key}<")?,
            Operator::In => write!(f, "{key} in (")?,
            Operator::NotIn => write!(f, "{key} notin (")?,
        }
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        f.write_str(&values.join(","))?;
        match self.operator {
            Operator::In | Operator::NotIn => f.write_str(")"),
            _ => Ok(()),
        }
    }
}

/// A label selector: all requirements have to be met, or nothing matches at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    /// Sorted by key; `None` selects nothing.
    requirements: Option<Vec<Requirement>>,
}

impl Default for Selector {
    fn default() -> Self {
        Self::everything()
    }
}

impl Selector {
    /// Selects every object.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            requirements: Some(Vec::new()),
        }
    }

    /// Selects no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Selects the objects that meet all requirements.
    #[must_use]
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|one, other| one.key.cmp(&other.key));
        Self {
            requirements: Some(requirements),
        }
    }

    /// Reads the `labelSelector` parameter of a request. The empty text selects everything.
    ///
    /// # Errors
    /// Where the text is not of the form that `labels.Parse` accepts.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        label_parser::parse(text).map(Self::new)
    }

    /// Whether an object with these labels is selected. Allocates nothing.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .as_ref()
            .is_some_and(|all| all.iter().all(|one| one.matches(label(&one.key))))
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether no object can be selected, as far as that is known without looking at values.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.requirements.is_none()
    }

    /// The requirements by key; empty where everything is selected, or nothing.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }

    /// The same selector with more requirements.
    #[must_use]
    pub fn and(self, more: impl IntoIterator<Item = Requirement>) -> Self {
        match self.requirements {
            Some(mut all) => {
                all.extend(more);
                Self::new(all)
            }
            None => Self::nothing(),
        }
    }

    /// The one value that `key` must have to be selected, where there is such a value; what an index by label needs
    /// (`RequiresExactMatch`).
    #[must_use]
    pub fn requires_exact_match(&self, key: &str) -> Option<&str> {
        let one = self.requirements().iter().find(|one| one.key == key)?;
        match (one.operator, one.values.as_slice()) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl FromStr for Selector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    /// As [`Selector::parse`] reads it. Selecting nothing has no text of its own: it is empty, as in Go.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;

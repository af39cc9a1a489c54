//! Label selectors as objects carry them: `metav1.LabelSelector`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::labels::{LabelSelectorError, Operator, Requirement, Selector};
use super::quoted;

/// Selects objects by their labels; all conditions have to be met. The empty selector selects everything; what an absent
/// one selects, the field that holds it says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that have to be there with exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Conditions on labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// A condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelectorRequirement {
    /// The label's key.
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`. A string, so that an unknown one is reported with its place instead of
    /// failing to decode.
    pub operator: String,
    /// The values: at least one for `In` and `NotIn`, none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl LabelSelector {
    /// The selector to match with (`metav1.LabelSelectorAsSelector`, but for an absent selector, see
    /// [`Self::optional_to_selector`]).
    ///
    /// # Errors
    /// Where an operator is unknown, or as [`Requirement::new`].
    pub fn to_selector(&self) -> Result<Selector, LabelSelectorError> {
        let labels = self
            .match_labels
            .iter()
            .map(|(key, value)| Requirement::new(key, Operator::Equals, vec![value.clone()]));
        let expressions = self
            .match_expressions
            .iter()
            .map(LabelSelectorRequirement::to_requirement);
        labels.chain(expressions).collect::<Result<_, _>>().map(Selector::new)
    }

    /// As `metav1.LabelSelectorAsSelector`: an absent selector selects nothing, an empty one everything.
    ///
    /// # Errors
    /// As [`Self::to_selector`].
    pub fn optional_to_selector(selector: Option<&Self>) -> Result<Selector, LabelSelectorError> {
        selector.map_or_else(|| Ok(Selector::nothing()), Self::to_selector)
    }

    /// Reads the text form (`metav1.ParseToLabelSelector`).
    ///
    /// # Errors
    /// Where the text is no selector, or uses `>` or `<`, which objects cannot express.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        let selector = Selector::parse(text).map_err(|error| {
            LabelSelectorError::new(format!("couldn't parse the selector string \"{text}\": {error}"))
        })?;
        Self::from_requirements(selector.requirements())
    }

    /// The object form of requirements.
    ///
    /// # Errors
    /// Where there is an inequality, which objects cannot express.
    pub fn from_requirements(requirements: &[Requirement]) -> Result<Self, LabelSelectorError> {
        let mut selector = Self::default();
        for requirement in requirements {
            let operator = match requirement.operator() {
                Operator::Equals | Operator::DoubleEquals => {
                    let key = requirement.key().to_owned();
                    selector.match_labels.insert(key, requirement.values()[0].clone());
                    continue;
                }
                Operator::In => "In",
                // Go refuses `!=` here; it says exactly what NotIn says.
                Operator::NotIn | Operator::NotEquals => "NotIn",
                Operator::Exists => "Exists",
                Operator::DoesNotExist => "DoesNotExist",
                Operator::GreaterThan => return Err(unsupported("gt")),
                Operator::LessThan => return Err(unsupported("lt")),
            };
            selector.match_expressions.push(LabelSelectorRequirement {
                key: requirement.key().to_owned(),
                operator: operator.to_owned(),
                values: requirement.values().to_vec(),
            });
        }
        Ok(selector)
    }

    /// Whether every object is selected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

fn unsupported(operator: &str) -> LabelSelectorError {
    LabelSelectorError::new(format!("{} isn't supported in label selectors", quoted(operator)))
}

impl LabelSelectorRequirement {
    /// The requirement to match with.
    ///
    /// # Errors
    /// Where the operator is unknown, or as [`Requirement::new`].
    pub fn to_requirement(&self) -> Result<Requirement, LabelSelectorError> {
        let operator = match self.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                return Err(LabelSelectorError::new(format!(
                    "{} is not a valid label selector operator",
                    quoted(other)
                )));
            }
        };
        Requirement::new(&self.key, operator, self.values.clone())
    }
}

impl fmt::Display for LabelSelector {
    /// As kubectl prints it (`metav1.FormatLabelSelector`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_selector() {
            Ok(selector) if selector.is_everything() => f.write_str("<none>"),
            Ok(selector) => selector.fmt(f),
            Err(_) => f.write_str("<error>"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_empty_and_full() {
        assert!(LabelSelector::optional_to_selector(None).unwrap().is_nothing());
        let empty: LabelSelector = serde_json::from_value(json!({})).unwrap();
        assert!(empty.is_empty());
        assert!(
            LabelSelector::optional_to_selector(Some(&empty))
                .unwrap()
                .is_everything()
        );
        let full = json!({
            "matchLabels": {"b": "c"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["y", "x"]},
                {"key": "d", "operator": "DoesNotExist"},
            ],
        });
        let selector: LabelSelector = serde_json::from_value(full.clone()).unwrap();
        assert_eq!(selector.to_selector().unwrap().to_string(), "a in (x,y),b=c,!d");
        assert_eq!(serde_json::to_value(&selector).unwrap(), full);
        assert_eq!(selector.to_string(), "a in (x,y),b=c,!d");
        assert_eq!(empty.to_string(), "<none>");
    }

    #[test]
    fn text_and_object_say_the_same() {
        for text in ["a=1,b in (x,y),c notin (z),!d,e", "a!=b"] {
            let object = LabelSelector::parse(text).unwrap();
            let selector = object.to_selector().unwrap();
            let written = Selector::parse(text).unwrap();
            for value in ["1", "x", "z", "b", ""] {
                for absent in ["a", "d", "x"] {
                    let lookup = |key: &str| (key != absent).then_some(value);
                    assert_eq!(selector.matches(lookup), written.matches(lookup), "{text} with {value}");
                }
            }
        }
        let error = LabelSelector::parse("a>1").unwrap_err().to_string();
        assert_eq!(error, "\"gt\" isn't supported in label selectors");
    }

    #[test]
    fn unknown_operators_are_reported() {
        let selector: LabelSelector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})).unwrap();
        assert_eq!(
            selector.to_selector().unwrap_err().to_string(),
            "\"Like\" is not a valid label selector operator"
        );
    }
}

//! What a check comes to.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It could not be looked at.
    NotChecked,
    /// It works, and will not for long, or not as well as it could.
    Warning,
    /// It does not work.
    Wrong,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was checked, as one word.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What is the case.
    pub(super) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    /// Nothing to do.
    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::Ok, message, None)
    }

    /// Could not be looked at; the message says why.
    pub(super) fn not_checked(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, Level::NotChecked, message, None)
    }

    /// Something to do.
    pub(super) fn warning(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(check, Level::Warning, message, Some(advice.into()))
    }

    /// Something to do at once.
    pub(super) fn wrong(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(check, Level::Wrong, message, Some(advice.into()))
    }

    fn new(check: &'static str, level: Level, message: impl Into<String>, advice: Option<String>) -> Self {
        Self {
            check,
            level,
            message: message.into(),
            advice,
        }
    }
}

/// The levels of findings, for tests.
#[cfg(test)]
pub(super) fn levels(findings: &[Finding]) -> Vec<Level> {
    findings.iter().map(|finding| finding.level).collect()
}

//! How findings are shown: a line each and what to do below it, or JSON.

use std::io::{self, Write};

use serde_json::json;

use super::finding::{Finding, Level};

/// Signs and words of the levels; the words make the signs legible where they are not.
fn shown(level: Level) -> (&'static str, &'static str, &'static str) {
    const RED: &str = "\u{1b}[31m";
    const GREEN: &str = "\u{1b}[32m";
    const YELLOW: &str = "\u{1b}[33m";
    match level {
        Level::Ok => ("✓", "ok", GREEN),
        Level::NotChecked => ("-", "not checked", ""),
        Level::Warning => ("!", "warning", YELLOW),
        Level::Wrong => ("✗", "wrong", RED),
    }
}

/// Writes a line for each finding, what to do below it, and a summary.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn text(out: &mut impl Write, findings: &[Finding], colour: bool) -> io::Result<()> {
    let widest = findings.iter().map(|one| one.check.len()).max().unwrap_or_default();
    for finding in findings {
        let (sign, word, code) = shown(finding.level);
        let (on, off) = if colour && !code.is_empty() {
            (code, "\u{1b}[0m")
        } else {
            ("", "")
        };
        // The message of another program may have lines.
        let message = finding.message.trim().replace('\n', " ");
        writeln!(out, "{on}{sign} {word:<11}{off}  {:<widest$}  {message}", finding.check)?;
        if let Some(advice) = &finding.advice {
            writeln!(out, "{:<13}  {:<widest$}  → {advice}", "", "")?;
        }
    }
    writeln!(out, "\n{}", summary(findings))
}

/// Writes the same as JSON.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn machine(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    let document = json!({
        "findings": findings,
        "summary": {
            "ok": count(findings, Level::Ok),
            "notChecked": count(findings, Level::NotChecked),
            "warning": count(findings, Level::Warning),
            "wrong": count(findings, Level::Wrong),
        },
    });
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

/// How many there are of each level.
pub(super) fn summary(findings: &[Finding]) -> String {
    let counted = [Level::Ok, Level::Warning, Level::Wrong, Level::NotChecked]
        .map(|level| format!("{} {}", count(findings, level), shown(level).1));
    format!("{} checks: {}", findings.len(), counted.join(", "))
}

pub(super) fn count(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|finding| finding.level == level).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::ok("hub", "it answers"),
            Finding::wrong("certificates", "it has\nended", "issue another"),
            Finding::not_checked("rbac", "you may not ask"),
        ]
    }

    #[test]
    fn text_is_legible_without_colour() {
        let mut out = Vec::new();
        text(&mut out, &findings(), false).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "✓ ok           hub           it answers
✗ wrong        certificates  it has ended
                             → issue another
- not checked  rbac          you may not ask

3 checks: 1 ok, 0 warning, 1 wrong, 1 not checked
"
        );
        let mut coloured = Vec::new();
        text(&mut coloured, &findings(), true).unwrap();
        assert!(String::from_utf8(coloured).unwrap().contains("\u{1b}[31m✗ wrong"));
    }

    #[test]
    fn machines_get_the_same() {
        let mut out = Vec::new();
        machine(&mut out, &findings()).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(document["findings"][1]["level"], "wrong");
        assert_eq!(document["findings"][1]["advice"], "issue another");
        assert_eq!(document["findings"][2]["level"], "notChecked");
        assert_eq!(document["summary"]["wrong"], 1);
    }
}

//! What figures become: lines on standard output, records of items, a file.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use umbra_show::Item;

use crate::figure::Figure;
use crate::machine::Machine;
use crate::output::say;

/// Items that figures with a bound are held against. What is left when this is dropped is short.
#[derive(Debug)]
pub(crate) struct Items(Vec<(&'static str, Item)>);

impl Items {
    /// Opens items: an item whose benchmark fails is short.
    pub(crate) fn open(names: &[&'static str]) -> Self {
        Self(names.iter().map(|name| (*name, Item::open(name))).collect())
    }

    /// Prints a figure, and records it where there is an item of its name.
    pub(crate) fn take(&mut self, figure: &Figure) {
        let bound = match figure.bound_text() {
            bound if bound.is_empty() => bound,
            bound => format!("  {bound}: {}", if figure.within() { "pass" } else { "short" }),
        };
        say(format_args!("  {:<72}  {}{bound}", figure.what, figure.text()));
        if let Some(index) = self.0.iter().position(|(name, _)| *name == figure.name) {
            self.0.swap_remove(index).1.measure(&figure.text(), figure.within());
        }
    }
}

/// What `--json` writes.
#[derive(Debug, Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    figures: &'a [Figure],
}

/// Writes machine and figures to a file.
pub(crate) fn write(path: &Path, machine: &Machine, figures: &[Figure]) -> anyhow::Result<()> {
    let report = Report { machine, figures };
    std::fs::write(path, serde_json::to_vec_pretty(&report)?).with_context(|| path.display().to_string())
}

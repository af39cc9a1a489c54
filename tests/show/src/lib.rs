//! What `make show-…` prints: one line per item that was to be shown.
//!
//! A test opens an [`Item`] and passes it at its end with the figure it has seen. An item that is dropped otherwise, as a
//! failed expectation does, is short. `tests/show/*.tsv` list the items that have to be there.

use std::io::Write as _;

/// An item that is being shown.
#[derive(Debug)]
pub struct Item {
    name: &'static str,
    passed: bool,
}

impl Item {
    /// Opens an item that one of `tests/show/*.tsv` lists under this name.
    #[must_use]
    pub fn open(name: &'static str) -> Self {
        Self { name, passed: false }
    }

    /// Passes it, with what was seen.
    pub fn pass(mut self, figure: &str) {
        self.passed = true;
        record(self.name, figure, "pass");
    }

    /// Records a figure that was measured: pass if it is within its bound.
    pub fn measure(mut self, figure: &str, within: bool) {
        self.passed = true;
        record(self.name, figure, if within { "pass" } else { "short" });
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        if !self.passed {
            record(self.name, "failed", "short");
        }
    }
}

/// Appends a line to the file that `SHOW_RESULTS` names.
fn record(name: &str, figure: &str, result: &str) {
    let Some(path) = std::env::var_os("SHOW_RESULTS") else {
        return;
    };
    let line = format!("{name}\t{}\t{result}\n", figure.replace(['\t', '\n'], " "));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    // One write: lines of tests that run at the same time do not mix.
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        let _ = writeln!(std::io::stderr(), "{}: {error}", path.display());
    }
}

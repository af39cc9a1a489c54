//! Shows a person who waits what is going on: a spinner on a terminal, a line a step elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// The steps of something that takes a while. Everything goes to standard error: standard output is for results.
pub(crate) struct Progress {
    /// Absent where standard error is no terminal.
    bar: Option<ProgressBar>,
    step: String,
}

impl Progress {
    /// Before the first step.
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is well-formed"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self {
            bar,
            step: String::new(),
        }
    }

    /// Ends the step before, if any, and begins the next.
    pub(crate) fn step(&mut self, text: impl Into<String>) {
        self.complete();
        self.step = text.into();
        match &self.bar {
            Some(bar) => bar.set_message(self.step.clone()),
            None => eprintln!("{} …", self.step),
        }
    }

    /// Says more about the step that is under way.
    pub(crate) fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {text}", self.step));
        }
    }

    /// Says something that stays to be read.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Ends the last step.
    pub(crate) fn finish(mut self) {
        self.complete();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn complete(&mut self) {
        let step = std::mem::take(&mut self.step);
        if let Some(bar) = self.bar.as_ref().filter(|_| !step.is_empty()) {
            bar.println(format!("✓ {step}"));
        }
    }
}

impl Drop for Progress {
    /// A step that failed leaves no spinner behind the error.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

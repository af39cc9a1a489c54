//! Running kubectl.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::environment::{self, Programs};
use crate::process::Process;

/// A command may take so long. Watches and the like are started with [`Kubectl::start`].
const LIMIT: Duration = Duration::from_secs(120);

/// The arguments of a command: one string that is split at blanks, or a list.
pub trait Arguments {
    /// As a list.
    fn list(self) -> Vec<String>;
}

impl Arguments for &str {
    fn list(self) -> Vec<String> {
        self.split_whitespace().map(str::to_owned).collect()
    }
}

impl Arguments for &String {
    fn list(self) -> Vec<String> {
        self.as_str().list()
    }
}

impl Arguments for String {
    fn list(self) -> Vec<String> {
        self.as_str().list()
    }
}

impl<const N: usize> Arguments for [&str; N] {
    fn list(self) -> Vec<String> {
        self.into_iter().map(str::to_owned).collect()
    }
}

impl Arguments for &[&str] {
    fn list(self) -> Vec<String> {
        self.iter().map(|argument| (*argument).to_owned()).collect()
    }
}

/// What a command came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line.
    pub line: String,
    /// The exit status; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Whether the command succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it does not end within 120 s.
    #[track_caller]
    pub fn of(command: Command, input: &str) -> Self {
        let line = crate::process::describe(&command);
        let mut process = Process::start(command, Some(input));
        let status = process.wait(LIMIT);
        Self {
            line,
            code: status.code(),
            stdout: process.stdout(),
            stderr: process.stderr(),
        }
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Panics
    /// Where it did not.
    #[track_caller]
    pub fn expect_success(self) -> String {
        assert!(self.succeeded(), "{self}");
        self.stdout
    }

    /// Standard error of a command that must fail.
    ///
    /// # Panics
    /// Where it did not.
    #[track_caller]
    pub fn expect_failure(self) -> String {
        assert!(matches!(self.code, Some(1..)), "it should have failed: {self}");
        self.stderr
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            line,
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "$ {line}\nexit status {code:?}\n--- stdout\n{stdout}--- stderr\n{stderr}"
        )
    }
}

/// kubectl with a kubeconfig, and flags that go before every command.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Kubectl {
    /// kubectl with a kubeconfig.
    #[must_use]
    pub fn new(programs: &Programs, kubeconfig: &Path) -> Self {
        Self {
            program: programs.kubectl.clone(),
            kubeconfig: kubeconfig.to_owned(),
            flags: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// The kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The same with one more flag.
    #[must_use]
    pub fn with(&self, flag: &str) -> Self {
        let mut with = self.clone();
        with.flags.push(flag.to_owned());
        with
    }

    /// The same with a variable of the environment.
    #[must_use]
    pub fn variable(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        with.variables.push((name.to_owned(), value.to_owned()));
        with
    }

    /// The same with a context.
    #[must_use]
    pub fn context(&self, context: &str) -> Self {
        self.with(&format!("--context={context}"))
    }

    /// The same with the server replaced, and with it the root.
    #[must_use]
    pub fn server(&self, url: &str) -> Self {
        self.with(&format!("--server={url}"))
    }

    /// The same with a namespace.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Self {
        self.with(&format!("--namespace={namespace}"))
    }

    fn command(&self, arguments: impl Arguments) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(&self.flags)
            .args(arguments.list());
        command.env("HOME", environment::home()).env_remove("KUBECONFIG");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it does not end within 120 s.
    #[track_caller]
    pub fn run(&self, arguments: impl Arguments) -> Outcome {
        self.run_with("", arguments)
    }

    /// Runs a command with standard input to its end.
    ///
    /// # Panics
    /// Where it does not end within 120 s.
    #[track_caller]
    pub fn run_with(&self, input: &str, arguments: impl Arguments) -> Outcome {
        Outcome::of(self.command(arguments), input)
    }

    /// Runs a command that must succeed, and returns its standard output.
    ///
    /// # Panics
    /// Where it fails.
    #[track_caller]
    pub fn ok(&self, arguments: impl Arguments) -> String {
        self.run(arguments).expect_success()
    }

    /// Runs a command that must succeed with standard input, and returns its standard output.
    ///
    /// # Panics
    /// Where it fails.
    #[track_caller]
    pub fn ok_with(&self, input: &str, arguments: impl Arguments) -> String {
        self.run_with(input, arguments).expect_success()
    }

    /// Applies a manifest.
    ///
    /// # Panics
    /// Where that fails.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        self.ok_with(manifest, "apply -f -")
    }

    /// Runs a command that must fail, and returns its standard error.
    ///
    /// # Panics
    /// Where it succeeds.
    #[track_caller]
    pub fn fails(&self, arguments: impl Arguments) -> String {
        self.run(arguments).expect_failure()
    }

    /// Runs a command with `-o json` and returns the object.
    ///
    /// # Panics
    /// Where it fails.
    #[track_caller]
    pub fn json(&self, arguments: impl Arguments) -> Value {
        let mut arguments = arguments.list();
        arguments.extend(["-o".to_owned(), "json".to_owned()]);
        let mut command = self.command("");
        command.args(arguments);
        let text = Outcome::of(command, "").expect_success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Runs `get` with a JSONPath, and returns what it prints, or the error.
    #[track_caller]
    pub fn path(&self, arguments: impl Arguments, path: &str) -> String {
        let mut command = self.command("get");
        command.args(arguments.list()).arg(format!("-o=jsonpath={path}"));
        let outcome = Outcome::of(command, "");
        if outcome.succeeded() {
            outcome.stdout
        } else {
            format!("error: {}", outcome.stderr)
        }
    }

    /// Starts a command in a terminal of so many rows and columns, where a person would type.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[track_caller]
    #[must_use]
    pub fn terminal(&self, arguments: impl Arguments, size: (u16, u16)) -> Process {
        Process::start_in_terminal(self.command(arguments), size)
    }

    /// Starts a command that goes on: a watch, logs, a port-forward. Its input stays open.
    #[track_caller]
    #[must_use]
    pub fn start(&self, arguments: impl Arguments) -> Process {
        Process::start(self.command(arguments), None)
    }
}

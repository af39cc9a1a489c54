//! Processes that end with the tests.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::wait;

/// Ends what is still there when the tests end, however they end: its standard input closes with them. Every process is
/// the leader of a group of its own; the group gets SIGTERM and, 20 s later, SIGKILL.
const REAPER: &str = r#"
alive=
while read -r verb group; do
    case $verb in
    started) alive="$alive $group" ;;
    ended)
        rest=
        for each in $alive; do [ "$each" = "$group" ] || rest="$rest $each"; done
        alive=$rest ;;
    esac
done
for group in $alive; do kill -TERM "-$group"; done
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    left=
    for group in $alive; do ! kill -0 "-$group" || left="$left $group"; done
    [ -n "$left" ] || exit 0
    sleep 1
done
for group in $left; do kill -KILL "-$group"; done
"#;

// Nobody can wait for what outlives this process on purpose.
#[expect(clippy::zombie_processes)]
static REAPER_INPUT: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut reaper = reaper();
    Mutex::new(reaper.stdin.take().expect("the input is piped"))
});

fn reaper() -> Child {
    let mut reaper = Command::new("sh");
    reaper
        .args(["-c", REAPER])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    reaper.spawn().expect("there is a shell")
}

fn tell_reaper(verb: &str, group: u32) {
    let mut input = REAPER_INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(input, "{verb} {group}").expect("the reaper lives as long as this process");
}

type Text = Arc<Mutex<Vec<u8>>>;

/// A process with its output so far.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Text,
    stderr: Text,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with `input`, or with an input that stays open where that is `None`.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[track_caller]
    pub fn start(command: Command, input: Option<&str>) -> Self {
        Self::spawn(command, input, None)
    }

    /// Starts `command` with an input that stays open, and appends its standard error to a file too.
    ///
    /// # Panics
    /// Where it cannot be started, or the file cannot be written.
    #[track_caller]
    pub fn start_logged(command: Command, log: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        Self::spawn(command, None, Some(file))
    }

    #[track_caller]
    fn spawn(mut command: Command, input: Option<&str>, log: Option<File>) -> Self {
        let name = describe(&command);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        tell_reaper("started", child.id());
        let (stdout, out) = collect(child.stdout.take().expect("the output is piped"), None);
        let (stderr, err) = collect(child.stderr.take().expect("the output is piped"), log);
        let mut stdin = child.stdin.take();
        if let Some(input) = input
            && let Some(mut pipe) = stdin.take()
        {
            // A program that does not read its input closes it; that is no failure.
            let _ = pipe.write_all(input.as_bytes());
        }
        Self {
            name,
            child,
            stdin,
            stdout,
            stderr,
            readers: vec![out, err],
            status: None,
        }
    }

    /// Starts `command` in a terminal of so many rows and columns; what appears there is its standard output.
    ///
    /// # Panics
    /// Where it cannot be started, or there is no terminal.
    #[track_caller]
    pub fn start_in_terminal(mut command: Command, size: (u16, u16)) -> Self {
        let name = describe(&command);
        let (ours, theirs) = terminal();
        set_size(&ours, size);
        let theirs = || theirs.try_clone().expect("a terminal can be opened more than once");
        command
            .stdin(theirs())
            .stdout(theirs())
            .stderr(theirs())
            .process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        tell_reaper("started", child.id());
        let input = ours.try_clone().expect("a terminal can be opened more than once");
        let (stdout, reader) = collect(ours, None);
        Self {
            name,
            child,
            stdin: Some(OwnedFd::from(input).into()),
            stdout,
            stderr: Text::default(),
            readers: vec![reader],
            status: None,
        }
    }

    /// Changes the size of its terminal to so many rows and columns, and tells it as a terminal does.
    ///
    /// # Panics
    /// Where it was not started in one.
    #[track_caller]
    pub fn resize(&self, size: (u16, u16)) {
        set_size(self.stdin.as_ref().expect("the input is open"), size);
        self.signal(Signal::WINCH);
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// Where the input is closed.
    #[track_caller]
    pub fn write(&mut self, input: &str) {
        let pipe = self.stdin.as_mut().expect("the input is open");
        pipe.write_all(input.as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal to it and to what it has started.
    pub fn signal(&self, signal: Signal) {
        if self.status.is_none()
            && let Some(group) = Pid::from_raw(self.id().cast_signed())
        {
            // It may have ended just now.
            let _ = kill_process_group(group, signal);
        }
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Panics
    /// Where the operating system does not know it.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .unwrap_or_else(|error| panic!("{}: {error}", self.name));
            if self.status.is_some() {
                tell_reaper("ended", self.child.id());
            }
        }
        self.status
    }

    /// Waits for its end, and for the rest of its output.
    ///
    /// # Panics
    /// Where it still runs after `deadline`; it is killed then.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            if start.elapsed() > deadline {
                self.signal(Signal::KILL);
                panic!(
                    "{}: still runs after {} s\n{}",
                    self.name,
                    deadline.as_secs(),
                    self.output()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // What it has started may hold the other end of the pipes open; its own output is there at once.
        let start = Instant::now();
        while self.readers.iter().any(|reader| !reader.is_finished()) && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
        status
    }

    /// Ends it with SIGTERM.
    ///
    /// # Panics
    /// Where that does not end it within 60 s.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.close_input();
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(60))
    }

    /// Waits until its standard output is as it should be.
    ///
    /// # Panics
    /// Where it ends before that, or after [`wait::DEADLINE`].
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        self.wait_for_within(wait::DEADLINE, what, holds)
    }

    /// The same with a deadline of its own.
    ///
    /// # Panics
    /// As [`Process::wait_for`].
    #[track_caller]
    pub fn wait_for_within(&mut self, deadline: Duration, what: &str, holds: impl Fn(&str) -> bool) -> String {
        wait::until(&format!("{}: {what}", self.name), deadline, || {
            let ended = self.ended();
            let stdout = self.stdout();
            if holds(&stdout) {
                return Ok(stdout);
            }
            assert!(ended.is_none(), "{}: ended before {what}\n{}", self.name, self.output());
            Err(self.output())
        })
    }

    /// Both outputs with a heading each, the last 100 lines of them.
    #[must_use]
    pub fn output(&self) -> String {
        format!(
            "--- stdout\n{}\n--- stderr\n{}",
            tail(&self.stdout()),
            tail(&self.stderr())
        )
    }
}

impl Drop for Process {
    /// Ends what nobody has ended: SIGTERM, and SIGKILL 10 s later.
    fn drop(&mut self) {
        self.close_input();
        self.signal(Signal::TERM);
        let start = Instant::now();
        while self.ended().is_none() {
            if start.elapsed() > Duration::from_secs(10) {
                self.signal(Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The command line as a person would type it.
#[must_use]
pub fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let mut line = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Both ends of a new terminal: the one that a person is at, and the one that programs are in.
#[track_caller]
fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there is a terminal");
    grantpt(&ours).expect("it is ours");
    unlockpt(&ours).expect("it is ours");
    let path = ptsname(&ours, Vec::new()).expect("a terminal has a name");
    let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let theirs = OpenOptions::new().read(true).write(true).open(path);
    (ours.into(), theirs.expect("a terminal has two ends"))
}

#[track_caller]
fn set_size(terminal: impl AsFd, (rows, columns): (u16, u16)) {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size).expect("a terminal has a size");
}

fn collect(mut pipe: impl Read + Send + 'static, mut log: Option<File>) -> (Text, JoinHandle<()>) {
    let text = Text::default();
    let sink = Arc::clone(&text);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            if let Some(log) = &mut log {
                // What cannot be logged is in memory all the same.
                let _ = log.write_all(&buffer[..read]);
            }
            sink.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(&buffer[..read]);
        }
    });
    (text, reader)
}

fn text(text: &Text) -> String {
    String::from_utf8_lossy(&text.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(100)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_those_of_the_process() {
        let mut process = Process::start(shell("cat; echo no >&2; exit 3"), Some("yes"));
        assert_eq!(process.wait(wait::DEADLINE).code(), Some(3));
        assert_eq!((process.stdout().as_str(), process.stderr().as_str()), ("yes", "no\n"));
    }

    #[test]
    fn the_reaper_ends_what_is_left() {
        let sleeper = || shell("exec sleep 1000").process_group(0).spawn().unwrap();
        let (mut left, mut ended) = (sleeper(), sleeper());
        let mut reaper = reaper();
        let mut input = reaper.stdin.take().unwrap();
        write!(
            input,
            "started {}\nstarted {}\nended {}\n",
            left.id(),
            ended.id(),
            ended.id()
        )
        .unwrap();
        drop(input);
        assert!(!left.wait().unwrap().success());
        assert!(reaper.wait().unwrap().success());
        assert!(
            ended.try_wait().unwrap().is_none(),
            "that is somebody else's number by now"
        );
        ended.kill().unwrap();
        ended.wait().unwrap();
    }

    #[test]
    fn what_a_process_has_started_ends_with_it() {
        let mut process = Process::start(shell("sleep 1000 & echo $!; wait"), None);
        let sleeper = process
            .wait_for("a number", |text| text.ends_with('\n'))
            .trim()
            .to_owned();
        drop(process);
        let path = Path::new("/proc").join(sleeper).join("cmdline");
        // As an orphan it is somebody else's to reap; its command line is gone or empty at once.
        wait::until("the end of the sleeper", wait::DEADLINE, || {
            match std::fs::read(&path) {
                Ok(line) if !line.is_empty() => Err(String::from_utf8_lossy(&line).into_owned()),
                _ => Ok(()),
            }
        });
    }
}

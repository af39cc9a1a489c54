//! Where the programs are, and where this run keeps its files.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The `umbra` binary.
    pub umbra: PathBuf,
    /// Runs a cluster.
    pub cluster: PathBuf,
    /// The unmodified kubectl.
    pub kubectl: PathBuf,
}

static PROGRAMS: LazyLock<Result<Programs, String>> = LazyLock::new(|| {
    let named = |variable: &str| {
        let value = std::env::var_os(variable).filter(|value| !value.is_empty());
        let path = PathBuf::from(value.ok_or(format!(
            "{variable} is not set; `make test` builds what is needed and sets it"
        ))?);
        std::path::absolute(&path).map_err(|error| format!("{variable}: {error}"))
    };
    let folder = named("KUBE_BIN")?;
    let programs = Programs {
        umbra: named("UMBRA_BIN")?,
        cluster: folder.join("cluster"),
        kubectl: folder.join("kubectl"),
    };
    for program in [&programs.umbra, &programs.cluster, &programs.kubectl] {
        if !program.is_file() {
            return Err(format!("there is no {}; `make test` builds it", program.display()));
        }
    }
    Ok(programs)
});

/// The programs, or `None` where they are not there, which is said on standard error.
///
/// # Panics
/// Where they are not there and `CI` is `true`.
#[must_use]
pub fn programs() -> Option<&'static Programs> {
    match &*PROGRAMS {
        Ok(programs) => Some(programs),
        Err(reason) => {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "no end-to-end test may be skipped here: {reason}"
            );
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            // Not `eprintln!`, which the test harness keeps to itself as long as the test passes; a line of its own, in one
            // piece, among what the harness says of other tests.
            let line = format!("\nSKIPPED {test}: {reason}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            None
        }
    }
}

static RUN: LazyLock<PathBuf> = LazyLock::new(|| {
    let parent = std::env::var_os("E2E_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    remove_finished_runs(&parent);
    let folder = parent.join(format!("e2e-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
});

/// Removes what earlier runs left to be looked at; the name ends with the number of the process.
fn remove_finished_runs(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix("e2e-")) else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A new folder whose name begins with `name`.
///
/// # Panics
/// Where it cannot be made.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = RUN.join(format!("{name}-{number}"));
    std::fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// The home directory of every program that is run: none of them sees the files of whoever runs the tests.
///
/// # Panics
/// Where it cannot be made.
#[must_use]
pub fn home() -> PathBuf {
    let home = RUN.join("home");
    std::fs::create_dir_all(&home).unwrap_or_else(|error| panic!("{}: {error}", home.display()));
    home
}

/// A port of 127.0.0.1 that nothing listens on, and that nobody is given by chance: below those that the kernel gives to whoever
/// asks for any (`net.ipv4.ip_local_port_range`, from 32,768), and none twice.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Runs at the same time begin at different places.
    let offset = std::process::id() * 64;
    let free = std::iter::repeat_with(|| (offset + ASKED.fetch_add(1, Ordering::Relaxed)) % 10_000)
        .take(10_000)
        .map(|number| u16::try_from(FIRST + number).expect("below 30,000"))
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("there is a free port")
}

/// The form of the hub that tests share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `umbra up`.
    Standalone,
    /// `umbra serve` behind a kube-apiserver.
    Aggregated,
}

/// The form that `E2E_HUB` names; standalone where it names none.
///
/// # Panics
/// Where it names something else.
#[must_use]
pub fn form() -> Form {
    match std::env::var("E2E_HUB").as_deref() {
        Ok("aggregated") => Form::Aggregated,
        Ok("standalone" | "") | Err(_) => Form::Standalone,
        Ok(other) => panic!("E2E_HUB is {other:?}; it has to be standalone or aggregated"),
    }
}

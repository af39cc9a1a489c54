//! `umbra backup`: everything a hub on the embedded store cannot be made anew without, in one file.
//!
//! The file has the objects of the store at one revision, and the files of the data directory: the authority, the key of
//! service account tokens, the administrator's kubeconfig, and the keys that Secrets are encrypted with. So it is as secret
//! as the data directory, encryption or not, and is made readable for its owner only.
//!
//! A hub that runs has the store to itself. It makes the backup and hands it over through a socket in its data directory
//! ([`server`]), which nobody can reach who could not read the directory anyway. Where no hub runs, the store is opened
//! here.

mod files;
pub(crate) mod server;

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use umbra_storage::embedded::backup::{BackupError, BackupSummary, copy};
use umbra_storage::{Embedded, OpenError, Options};

use crate::progress::Progress;

/// How often the count of objects is shown.
const SHOW_AGAIN: Duration = Duration::from_millis(200);
/// How long the hub may send nothing: it reads from its disk and writes to memory.
const SILENCE: Duration = Duration::from_secs(60);

/// What `umbra backup` takes.
#[derive(Args)]
#[command(after_help = "\
The backup holds the hub's keys beside its objects, also those that Secrets are encrypted with: whoever has the file can act \
as the hub's administrator. Keep it as safe as the data directory. Files outside of the data directory, such as one that \
--encryption-provider-config names, are not in it.\n\
A hub on etcd is backed up with `etcdctl snapshot save`.")]
pub(crate) struct BackupArguments {
    /// The data directory of the hub, which may run meanwhile [default: ~/.umbra].
    #[arg(long, env = "UMBRA_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to write the backup [default: umbra-TIME.backup in this directory].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Makes a backup.
///
/// # Errors
/// Where there is no store, or it or the output fails.
pub(crate) async fn run(arguments: BackupArguments) -> Result<()> {
    let directory = data_dir(arguments.data_dir)?;
    let output = arguments
        .output
        .unwrap_or_else(|| PathBuf::from(format!("umbra-{}.backup", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"))));
    if output.is_dir() {
        bail!("{} is a directory; name a file with --output", output.display());
    }
    let mut progress = Progress::new();
    let summary = match connect(&directory)? {
        Some(hub) => {
            progress.step(format!("receiving a backup from the hub of {}", directory.display()));
            receive(hub, &output, &progress).await?
        }
        None => {
            progress.step(format!("backing up {}, whose hub does not run", directory.display()));
            read_store(&directory, &output, &progress).await?
        }
    };
    progress.finish();
    eprintln!("{} is a backup of {}", output.display(), describe(&summary));
    eprintln!("It holds the hub's keys: keep it as safe as {}.", directory.display());
    eprintln!("Restore it with: umbra restore {} --data-dir DIR", output.display());
    Ok(())
}

/// What a backup holds, in words.
pub(crate) fn describe(summary: &BackupSummary) -> String {
    format!(
        "{} objects at revision {} and {} files, {}",
        summary.objects,
        summary.revision,
        summary.files.len(),
        size(summary.bytes)
    )
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1_000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes / 100_000_000 % 10),
    }
}

/// The data directory that was asked for, or the one of every day.
///
/// # Errors
/// Where there is neither.
pub(crate) fn data_dir(asked: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = asked {
        return Ok(path);
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.context("there is no home directory; name the data directory with --data-dir")?;
    Ok(PathBuf::from(home).join(".umbra"))
}

/// Shows the count that a thread raises, until it is done.
pub(crate) async fn watched<T>(
    progress: &Progress,
    work: impl FnOnce(Arc<AtomicU64>) -> tokio::task::JoinHandle<T>,
) -> Result<T> {
    let count = Arc::new(AtomicU64::new(0));
    let mut work = work(Arc::clone(&count));
    loop {
        match tokio::time::timeout(SHOW_AGAIN, &mut work).await {
            Ok(done) => return Ok(done?),
            Err(_) => progress.detail(&format!("{} objects", count.load(Ordering::Relaxed))),
        }
    }
}

/// The running hub, if there is one.
fn connect(directory: &Path) -> Result<Option<UnixStream>> {
    let socket = server::Address::of(directory)?;
    match UnixStream::connect(socket.path()) {
        Ok(stream) => Ok(Some(stream)),
        // Nobody listens, or nobody has since the hub was killed.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error).with_context(|| {
            format!(
                "the hub of {} cannot be asked for a backup; use the account that it runs as",
                directory.display()
            )
        }),
    }
}

async fn receive(hub: UnixStream, output: &Path, progress: &Progress) -> Result<BackupSummary> {
    hub.set_read_timeout(Some(SILENCE))?;
    let output = output.to_owned();
    let copied = watched(progress, |count| {
        tokio::task::spawn_blocking(move || copy(hub, &output, |objects| count.store(objects, Ordering::Relaxed)))
    });
    match copied.await? {
        Err(BackupError::Aborted { reason }) => bail!("the hub broke the backup off: {reason}"),
        copied => Ok(copied?),
    }
}

async fn read_store(directory: &Path, output: &Path, progress: &Progress) -> Result<BackupSummary> {
    let path = directory.join("store.redb");
    if !path.exists() {
        bail!(
            "there is no store in {}; name the data directory of the hub with --data-dir. A hub on etcd is backed up with \
             `etcdctl snapshot save`",
            directory.display()
        );
    }
    let options = {
        let mut options = Options::default();
        // It is read once, as it is.
        options.history = None;
        options
    };
    let store = match Embedded::open(&path, options).await {
        Err(OpenError::Locked { .. }) => bail!(
            "a process is using {}, but no hub takes orders for backups at {}; if a hub is starting, try again in a moment",
            path.display(),
            directory.join(server::SOCKET).display()
        ),
        opened => opened?,
    };
    let summary = write(&store, directory, output, progress).await;
    store.close().await;
    summary
}

async fn write(store: &Embedded, directory: &Path, output: &Path, progress: &Progress) -> Result<BackupSummary> {
    let (reader, writer) = UnixStream::pair()?;
    let files = files::collect(directory)?;
    let making = store.backup_to(files, writer, |_| {});
    let (made, received) = tokio::join!(making, receive(reader, output, progress));
    // What the store says is closer to the cause; an output that fails makes both fail, the store by a broken pipe.
    match (made, received) {
        (Err(error @ BackupError::Store(_)), _) => Err(error.into()),
        (_, received) => received,
    }
}

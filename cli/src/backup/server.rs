//! How a running hub hands out backups: whoever connects to the socket in its data directory gets one.
//!
//! The socket is the simplest thing that is private. The directory is its owner's alone, and whoever can read it has
//! everything that a backup has; nothing is reachable from another machine, and no permission has to be thought of.

use std::fs::{File, Permissions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_storage::Embedded;

use super::files;

/// The socket in the data directory.
pub(crate) const SOCKET: &str = "backup.sock";
/// How long a client may take nothing: the state that it reads stays in the file meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is left of the 108 bytes that the address of a socket has, with a good margin.
const LONGEST_ADDRESS: usize = 100;

/// Where the socket of a data directory is, however long the path of the directory.
#[derive(Debug)]
pub(crate) struct Address {
    path: PathBuf,
    /// Open for as long as the path leads through it.
    _directory: Option<File>,
}

impl Address {
    /// The address for a data directory.
    ///
    /// # Errors
    /// Where the path is long and the directory cannot be opened.
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        let path = directory.join(SOCKET);
        if path.as_os_str().len() <= LONGEST_ADDRESS || !directory.exists() {
            return Ok(Self { path, _directory: None });
        }
        let open = File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
        Ok(Self {
            path: PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd())),
            _directory: Some(open),
        })
    }

    /// The address.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Hands out backups of `store` and the files of `directory` until `cancelled`. The caller has the lock of the store, so
/// that a socket that is there already is nobody's.
///
/// # Errors
/// Where the socket cannot be made.
pub(crate) fn serve(
    directory: &Path,
    store: Embedded,
    tracker: &TaskTracker,
    cancelled: CancellationToken,
) -> Result<()> {
    let address = Address::of(directory)?;
    let shown = directory.join(SOCKET);
    let _ = std::fs::remove_file(&shown);
    let listener =
        UnixListener::bind(address.path()).with_context(|| format!("cannot listen on {}", shown.display()))?;
    std::fs::set_permissions(&shown, Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", shown.display()))?;
    let directory = directory.to_owned();
    tracker.spawn(async move {
        let serving = accept(&listener, &directory, &store);
        cancelled.run_until_cancelled(serving).await;
        let _ = std::fs::remove_file(shown);
    });
    Ok(())
}

/// One after the other: each reads the whole store.
async fn accept(listener: &UnixListener, directory: &Path, store: &Embedded) {
    loop {
        let handed_out = match listener.accept().await {
            Ok((stream, _)) => hand_out(stream, directory, store).await,
            Err(error) => {
                // Out of file handles; a moment later there may be some.
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(error.into())
            }
        };
        if let Err(error) = handed_out {
            tracing::warn!(error = format!("{error:#}"), "a backup has failed");
        }
    }
}

async fn hand_out(stream: UnixStream, directory: &Path, store: &Embedded) -> Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let directory = directory.to_owned();
    let files = tokio::task::spawn_blocking(move || files::collect(&directory)).await??;
    let summary = store.backup_to(files, stream, |_| {}).await?;
    tracing::info!(objects = summary.objects, revision = %summary.revision, "a backup has been handed out");
    Ok(())
}

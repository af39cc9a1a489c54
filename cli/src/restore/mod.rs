//! `umbra restore`: a data directory from a backup.
//!
//! The backup is read and checked before anything is touched, the directory is made beside its place, and put there by one
//! rename. What was there before is kept under another name.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use k8s_openapi::jiff::Timestamp;
use umbra_storage::Revision;
use umbra_storage::embedded::StoreLock;
use umbra_storage::embedded::backup::{self, BackupError, BackupFile, BackupSummary, REVISION_GAP};

use crate::backup::{data_dir, describe, watched};
use crate::progress::Progress;

/// What `umbra restore` takes.
#[derive(Args)]
#[command(after_help = "\
The revision of the restored hub is ahead of everything that the lost one can have given out, and all history is gone: \
clients that watched list anew by themselves. Changes made after the backup are lost; children whose objects were copied or \
placed since then are brought in line again.")]
pub(crate) struct RestoreArguments {
    /// The backup, made by `umbra backup`.
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// The data directory to make [default: ~/.umbra].
    #[arg(long, env = "UMBRA_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Replace a data directory that is there. It is kept beside, as DIR.replaced-TIME.
    #[arg(long)]
    force: bool,
}

/// Restores a backup.
///
/// # Errors
/// Where the backup is not sound, or the directory may not or cannot be made. What was there is as before then.
pub(crate) async fn run(arguments: RestoreArguments) -> Result<()> {
    let directory = data_dir(arguments.data_dir)?;
    let mut progress = Progress::new();
    progress.step(format!("checking {}", arguments.backup.display()));
    check(&arguments.backup, &progress).await?;
    let place = Place::claim(&directory, arguments.force)?;
    progress.step(format!("restoring to {}", directory.display()));
    let restored = match fill(&arguments.backup, &place.staging, &progress).await {
        Ok(restored) => place.settle().map(|kept| (restored, kept)),
        Err(error) => Err(error),
    };
    let ((summary, revision), kept) = match restored {
        Ok(restored) => restored,
        Err(error) => {
            // What has been made so far is of no use to anybody.
            let _ = std::fs::remove_dir_all(staging_of(&directory));
            return Err(error);
        }
    };
    progress.finish();
    eprintln!("{} has been made of {}", directory.display(), describe(&summary));
    eprintln!(
        "Its revision is {revision}, {REVISION_GAP} ahead of the backup, so that no revision of the lost time comes to mean \
         something else; clients list anew."
    );
    if let Some(kept) = kept {
        eprintln!(
            "What was there before is in {}; remove it when it is not needed any more.",
            kept.display()
        );
    }
    eprintln!("Start the hub with: umbra up --data-dir {}", directory.display());
    Ok(())
}

async fn check(path: &Path, progress: &Progress) -> Result<()> {
    let input = open(path)?;
    let checked = watched(progress, |count| {
        tokio::task::spawn_blocking(move || backup::verify(input, |objects| count.store(objects, Ordering::Relaxed)))
    });
    checked
        .await?
        .with_context(|| format!("{} cannot be restored", path.display()))?;
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot read the backup {}", path.display()))
}

/// Makes the store and the files in `staging`.
async fn fill(path: &Path, staging: &Path, progress: &Progress) -> Result<(BackupSummary, Revision)> {
    let input = open(path)?;
    let staging = staging.to_owned();
    let filled = watched(progress, |count| {
        tokio::task::spawn_blocking(move || {
            let restored = backup::restore(
                input,
                &staging.join("store.redb"),
                REVISION_GAP,
                |file| write_file(&staging, &file),
                |objects| count.store(objects, Ordering::Relaxed),
            )?;
            File::open(&staging).and_then(|folder| folder.sync_all())?;
            anyhow::Ok(restored)
        })
    });
    filled.await?
}

fn write_file(directory: &Path, file: &BackupFile) -> Result<(), BackupError> {
    let path = directory.join(&file.name);
    let write = || {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut output = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        output.write_all(&file.content)?;
        output.sync_all()
    };
    write().map_err(|source| BackupError::Io {
        action: format!("{} cannot be written", path.display()),
        source,
    })
}

/// Where the restored directory goes.
struct Place {
    directory: PathBuf,
    staging: PathBuf,
    /// Whether something is there that is to be kept.
    occupied: bool,
    /// Keeps a hub from starting there meanwhile.
    _lock: Option<StoreLock>,
}

impl Place {
    fn claim(directory: &Path, force: bool) -> Result<Self> {
        let shown = directory.display();
        let occupied = match std::fs::read_dir(directory) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(error).with_context(|| format!("cannot look into {shown}")),
        };
        if occupied && !force {
            bail!(
                "{shown} is not empty; choose another directory with --data-dir, or replace it with --force (what is there \
                 is kept beside it)"
            );
        }
        let lock = occupied
            .then(|| StoreLock::acquire(&directory.join("store.redb")))
            .transpose()
            .with_context(|| format!("{shown} cannot be replaced"))?;
        let staging = staging_of(directory);
        // Of a restore that was interrupted.
        match std::fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", staging.display()));
            }
            _ => {}
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&staging)
            .with_context(|| format!("cannot make {}", staging.display()))?;
        Ok(Self {
            directory: directory.to_owned(),
            staging,
            occupied,
            _lock: lock,
        })
    }

    /// Puts what was made in its place; answers where what was there is now.
    fn settle(&self) -> Result<Option<PathBuf>> {
        let replaced = || {
            let kept = self.occupied.then(|| {
                let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
                beside(&self.directory, &format!("replaced-{time}"))
            });
            if let Some(kept) = &kept {
                std::fs::rename(&self.directory, kept)?;
            }
            if let Err(error) = std::fs::rename(&self.staging, &self.directory) {
                if let Some(kept) = &kept {
                    std::fs::rename(kept, &self.directory)?;
                }
                return Err(error);
            }
            let parent = self.directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(kept)
        };
        replaced().with_context(|| {
            format!(
                "{} cannot be put in place; where it is a mount point, name a directory inside of it with --data-dir",
                self.directory.display()
            )
        })
    }
}

fn staging_of(directory: &Path) -> PathBuf {
    beside(directory, "restoring")
}

/// A sibling of the directory.
fn beside(directory: &Path, ending: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or("umbra".as_ref()).to_owned();
    name.push(".");
    name.push(ending);
    directory.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_touched_without_force() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("ca.key"), "old").unwrap();
        let Err(error) = Place::claim(&directory, false) else {
            panic!("it is not empty");
        };
        assert!(error.to_string().contains("--force"), "{error}");
        let place = Place::claim(&directory, true).unwrap();
        std::fs::write(place.staging.join("ca.key"), "new").unwrap();
        let kept = place.settle().unwrap().expect("what was there is kept");
        let read = |folder: &Path| std::fs::read_to_string(folder.join("ca.key")).unwrap();
        assert_eq!((read(&directory), read(&kept)), ("new".to_owned(), "old".to_owned()));
        assert!(!place.staging.exists());
    }

    #[test]
    fn a_directory_in_use_is_not_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        std::fs::create_dir(&directory).unwrap();
        let _lock = StoreLock::acquire(&directory.join("store.redb")).unwrap();
        let Err(error) = Place::claim(&directory, true) else {
            panic!("it is in use");
        };
        assert!(format!("{error:#}").contains("another umbra process"), "{error:#}");
    }
}

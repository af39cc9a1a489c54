//! Which files of a data directory belong to a backup: all but those of the store, and what is made anew by itself. A list
//! of what to leave out, so that a key that is added one day is not forgotten here.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use umbra_storage::embedded::backup::BackupFile;

/// Simulated clusters, which are not the hub's.
const DEMO: &str = "demo";
/// Keys, certificates and settings are small; what is larger is none of them.
const LARGEST: u64 = 16 << 20;

/// Reads the files.
///
/// # Errors
/// Where one cannot be read, or is too large.
pub(super) fn collect(directory: &Path) -> Result<Vec<BackupFile>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = directory.join(&folder);
        let entries = std::fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", path.display()))?;
            let name = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() && name != Path::new(DEMO) {
                folders.push(name);
            } else if kind.is_file() && belongs(&name) {
                files.push(read(directory, &name)?);
            }
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

fn belongs(name: &Path) -> bool {
    let name = name.file_name().unwrap_or_default().to_string_lossy();
    let of_the_store = name.starts_with("store.redb");
    let passing = [".log", ".partial", ".backup"]
        .iter()
        .any(|ending| name.ends_with(ending));
    !of_the_store && !passing
}

fn read(directory: &Path, name: &Path) -> Result<BackupFile> {
    let path = directory.join(name);
    let shown = path.display();
    let length = std::fs::metadata(&path)
        .with_context(|| format!("cannot read {shown}"))?
        .len();
    if length > LARGEST {
        bail!("{shown} has {length} bytes and does not belong to a hub; move it out of the data directory");
    }
    Ok(BackupFile {
        name: name
            .to_str()
            .with_context(|| format!("the name of {shown} is not UTF-8"))?
            .to_owned(),
        content: std::fs::read(&path).with_context(|| format!("cannot read {shown}"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_belong_to_a_backup_and_the_store_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        };
        for name in [
            "ca.key",
            "keys/secrets.yaml",
            "store.redb",
            "store.redb.lock",
            "hub.log",
            "demo/east/ca.key",
        ] {
            write(name);
        }
        let _listener = std::os::unix::net::UnixListener::bind(directory.path().join("backup.sock")).unwrap();
        let files = collect(directory.path()).unwrap();
        let names: Vec<&str> = files.iter().map(|file| &*file.name).collect();
        assert_eq!(names, ["ca.key", "keys/secrets.yaml"]);
        assert_eq!(files[0].content, b"ca.key");
    }
}

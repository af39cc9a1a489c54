//! Adding contexts to a kubeconfig that belongs to a person.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{Kubeconfig, KubeconfigError, file_error};

/// Adds the clusters, users and contexts of `additions` to the file at `path`, replacing those of the same name, and makes
/// its `current_context` the current one when it is not empty. Everything else in the file stays, as [`edit`] says.
///
/// # Errors
///
/// When the file cannot be read or written, is no kubeconfig, or is locked.
pub fn merge_into(path: &Path, additions: &Kubeconfig) -> Result<(), KubeconfigError> {
    let malformed = |error: serde_json::Error| KubeconfigError::Malformed {
        origin: "what is to be added".to_owned(),
        message: error.to_string(),
    };
    let additions = serde_json::to_value(additions).map_err(malformed)?;
    edit(path, |file| add(file, &additions))
}

/// Changes the kubeconfig at `path`, which is given to `change` as it is written, and empty when it does not exist. What
/// `change` leaves alone stays, also what this program does not know; comments do not survive. The file is replaced at once
/// (rename), and readable by its owner alone. Takes kubectl's lock (`{path}.lock`) meanwhile.
///
/// # Errors
///
/// When the file cannot be read or written, is no kubeconfig, or is locked, and what `change` refuses. Nothing is written
/// then.
pub fn edit(
    path: &Path,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), String>,
) -> Result<(), KubeconfigError> {
    // A link stays a link: what it points at is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let failed = |source| file_error(&path, source);
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let _lock = Lock::take(&path)?;
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    let origin = path.display().to_string();
    let edited = edit_text(&text, origin, change)?;
    replace(&path, edited.as_bytes()).map_err(failed)
}

/// The text of a kubeconfig after `change`.
fn edit_text(
    text: &str,
    origin: String,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<(), String>,
) -> Result<String, KubeconfigError> {
    let malformed = |message: String| KubeconfigError::Malformed {
        origin: origin.clone(),
        message,
    };
    let mut file: Map<String, Value> = if text.trim().is_empty() {
        Map::new()
    } else {
        serde_saphyr::from_str(text).map_err(|error| malformed(error.to_string()))?
    };
    file.entry("apiVersion").or_insert_with(|| "v1".into());
    file.entry("kind").or_insert_with(|| "Config".into());
    for list in ["clusters", "users", "contexts"] {
        let entries = file.entry(list).or_insert(Value::Null);
        if entries.is_null() {
            *entries = Value::Array(Vec::new());
        }
        if !entries.is_array() {
            return Err(malformed(format!("{list} is not a list")));
        }
    }
    let written = change(&mut file).and_then(|()| serde_saphyr::to_string(&file).map_err(|error| error.to_string()));
    written.map_err(|message| KubeconfigError::Refused { origin, message })
}

fn add(file: &mut Map<String, Value>, additions: &Value) -> Result<(), String> {
    for list in ["clusters", "users", "contexts"] {
        let entries = file.get_mut(list).and_then(Value::as_array_mut);
        let entries = entries.ok_or_else(|| format!("{list} is not a list"))?;
        for addition in additions[list].as_array().into_iter().flatten() {
            match entries.iter_mut().find(|entry| entry["name"] == addition["name"]) {
                Some(entry) => *entry = addition.clone(),
                None => entries.push(addition.clone()),
            }
        }
    }
    if let Some(current) = additions["current-context"].as_str().filter(|name| !name.is_empty()) {
        file.insert("current-context".into(), current.into());
    }
    Ok(())
}

/// Writes a new file beside `path` and renames it over it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = beside(path, &format!(".{}.tmp", std::process::id()));
    let written = (|| {
        // Of a process that was killed here before and had the same number.
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The lock that kubectl takes, too (`lockFile` in `tools/clientcmd/loader.go`).
struct Lock(PathBuf);

impl Lock {
    fn take(path: &Path) -> Result<Self, KubeconfigError> {
        let lock = beside(path, ".lock");
        File::create_new(&lock).map_err(|error| {
            let source = match error.kind() {
                io::ErrorKind::AlreadyExists => io::Error::new(
                    error.kind(),
                    "somebody else is changing the kubeconfig; if nobody is, remove this file",
                ),
                _ => error,
            };
            file_error(&lock, source)
        })?;
        Ok(Self(lock))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(lock = %self.0.display(), %error, "the lock of the kubeconfig cannot be removed");
        }
    }
}

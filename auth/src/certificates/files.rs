//! Files that are whole or absent.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::CertificateError;

/// Writes a file that only its owner may read, replacing it atomically: a reader sees the old file or the new one, also
/// after a crash. The folder has to exist.
///
/// # Errors
/// [`CertificateError::File`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), CertificateError> {
    write(path, content, 0o600)
}

/// As [`write_private`], readable by everyone.
///
/// # Errors
/// [`CertificateError::File`].
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), CertificateError> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), CertificateError> {
    replace(path, content, mode).map_err(|source| CertificateError::File {
        path: path.to_owned(),
        source,
    })
}

fn replace(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", uuid::Uuid::new_v4()));
    let temporary = folder.join(name);
    let written = write_new(&temporary, content, mode).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // What failed is what the caller has to hear of; the leftover is harmless.
        let _leftover = std::fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

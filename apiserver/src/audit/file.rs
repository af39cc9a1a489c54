//! Where lines go: standard output, or a file that is moved aside when it is large.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// How large log files become, and how many are kept.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// Bytes after which the file is moved aside, between two lines.
    pub max_size: u64,
    /// Files moved aside that are kept; 0 is all of them.
    pub max_backups: usize,
    /// How long files that were moved aside are kept; zero is for ever.
    pub max_age: Duration,
}

/// An open destination.
#[derive(Debug)]
pub(super) enum Sink {
    StandardOutput,
    File(RotatingFile),
}

impl Sink {
    /// Writes whole lines. What is written when it fails may be part of them.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::StandardOutput => {
                let mut output = io::stdout().lock();
                output.write_all(lines)?;
                output.flush()
            }
            Self::File(file) => file.write(lines),
        }
    }
}

/// A file that is moved to `NAME-TIME.EXTENSION` when it is full, as kube-apiserver's is
/// (`gopkg.in/natefinch/lumberjack.v2`).
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Rotation,
}

impl RotatingFile {
    /// Opens the file, readable for its owner alone, and goes on at its end.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            rotation,
        })
    }

    fn write(&mut self, mut lines: &[u8]) -> io::Result<()> {
        while !lines.is_empty() {
            let room = self.rotation.max_size.saturating_sub(self.size);
            let count = match fitting(lines, room) {
                0 if self.size > 0 => {
                    self.rotate()?;
                    continue;
                }
                // A line that is longer than a file.
                0 => lines
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(lines.len(), |at| at + 1),
                count => count,
            };
            self.file.write_all(&lines[..count])?;
            self.size += count as u64;
            lines = &lines[count..];
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, self.free_name())?;
        self.file = append(&self.path)?;
        self.size = 0;
        self.remove_old()
    }

    /// The name with the time in it; where files follow each other within a millisecond, a later one.
    fn free_name(&self) -> PathBuf {
        let (stem, extension) = self.name_parts();
        let mut time = Timestamp::now();
        loop {
            let name = format!("{stem}-{}{extension}", time.strftime("%Y-%m-%dT%H-%M-%S.%3f"));
            let path = self.path.with_file_name(name);
            if !path.exists() {
                return path;
            }
            time += Duration::from_millis(1);
        }
    }

    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension = text(self.path.extension());
        let dot = if extension.is_empty() { "" } else { "." };
        (text(self.path.file_stem()), format!("{dot}{extension}"))
    }

    fn remove_old(&self) -> io::Result<()> {
        let mut backups = self.backups()?;
        // Names begin with the time and so order the files.
        backups.sort_unstable_by(|one, other| other.cmp(one));
        let Rotation {
            max_backups, max_age, ..
        } = self.rotation;
        for (position, backup) in backups.iter().enumerate() {
            let too_many = max_backups > 0 && position >= max_backups;
            if too_many || (!max_age.is_zero() && is_older(backup, max_age)?) {
                std::fs::remove_file(backup)?;
            }
        }
        Ok(())
    }

    fn backups(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, extension) = self.name_parts();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut backups = Vec::new();
        for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let time = name
                .strip_prefix(&format!("{stem}-"))
                .and_then(|rest| rest.strip_suffix(&extension));
            if time.is_some_and(is_time) {
                backups.push(path);
            }
        }
        Ok(backups)
    }
}

/// How many bytes of whole lines there is room for.
fn fitting(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if lines.len() <= room {
        return lines.len();
    }
    lines[..room]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn is_older(path: &Path, age: Duration) -> io::Result<bool> {
    let modified = path.metadata()?.modified()?;
    Ok(SystemTime::now()
        .duration_since(modified)
        .is_ok_and(|since| since > age))
}

/// `2026-01-02T03-04-05.678`: nobody else's file is removed because its name begins alike.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00-00-00.000";
    text.len() == FORM.len()
        && text.bytes().zip(FORM).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            other => byte == *other,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(max_size: u64, max_backups: usize) -> Rotation {
        Rotation {
            max_size,
            max_backups,
            max_age: Duration::ZERO,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_full_file_is_moved_aside_between_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/audit.log");
        let mut file = RotatingFile::open(&path, rotation(10, 2)).unwrap();
        file.write(b"one\ntwo\nthree\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        file.write(b"a line that is longer than the file\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a line that is longer than the file\n");
        drop(file);
        // Found again, and full.
        let mut file = RotatingFile::open(&path, rotation(10, 2)).unwrap();
        let foreign = path.with_file_name("audit-mine.log");
        std::fs::write(&foreign, "").unwrap();
        file.write(b"four\n").unwrap();
        let seen = names(path.parent().unwrap());
        assert_eq!(seen.len(), 4, "two backups, the file, and what is not ours: {seen:?}");
        assert!(foreign.exists() && seen.contains(&"audit.log".to_owned()));
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn old_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let old = path.with_file_name("audit-2020-01-01T00-00-00.000.log");
        let recent = path.with_file_name("audit-2020-01-02T00-00-00.000.log");
        for path in [&old, &recent] {
            std::fs::write(path, "x").unwrap();
        }
        let day = Duration::from_secs(24 * 3600);
        let file = File::options().write(true).open(&old).unwrap();
        file.set_modified(SystemTime::now() - 2 * day).unwrap();
        let kept = Rotation {
            max_age: day,
            ..rotation(4, 0)
        };
        let mut file = RotatingFile::open(&path, kept).unwrap();
        file.write(b"one\ntwo\n").unwrap();
        assert!(!old.exists() && recent.exists());
    }
}

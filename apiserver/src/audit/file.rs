//! Where lines go: standard output, or a file that is moved aside when it is large.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::lines::{Lines, WriteError, count, whole};

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
    /// Without the buffer of [`io::stdout`], which would not tell what has been written.
    StandardOutput(Lines<File>),
    File(RotatingFile),
}

impl Sink {
    /// The process's standard output.
    pub(super) fn standard_output() -> io::Result<Self> {
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::StandardOutput(Lines::new(output.into())))
    }

    /// Writes whole lines.
    ///
    /// # Errors
    /// When not all are written. Those that are stay whole.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        match self {
            Self::StandardOutput(output) => {
                // What others print comes before or after.
                let mut others = io::stdout().lock();
                others.flush()?;
                output.write(lines)
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
    file: Lines<File>,
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
        let size = file.output.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            size,
            rotation,
        })
    }

    fn write(&mut self, mut lines: &[u8]) -> Result<(), WriteError> {
        let mut written = 0;
        while !lines.is_empty() {
            let room = self.rotation.max_size.saturating_sub(self.size);
            let bytes = match fitting(lines, room) {
                0 if self.size > 0 => {
                    self.rotate().map_err(|error| WriteError::from(error).after(written))?;
                    continue;
                }
                // A line that is longer than a file.
                0 => lines
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(lines.len(), |at| at + 1),
                bytes => bytes,
            };
            let (these, rest) = lines.split_at(bytes);
            self.append(these).map_err(|error| error.after(written))?;
            written += count(these);
            lines = rest;
        }
        Ok(())
    }

    /// Writes lines into the file as it is. What of a line there was no room for is removed again.
    fn append(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        let outcome = self.file.write(lines);
        if self.file.torn() > 0 && cut(&self.file.output, self.file.torn()).is_ok() {
            self.file.mended();
        }
        // Others may have cut the file, so what has been added would not tell.
        let length = self.file.output.metadata().map(|metadata| metadata.len());
        self.size = length.unwrap_or(self.size + lines.len() as u64);
        outcome
    }

    fn rotate(&mut self) -> io::Result<()> {
        match std::fs::rename(&self.path, self.free_name()) {
            // Somebody else has moved it, or this did, and then could not open the new one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved?,
        }
        self.file = append(&self.path)?;
        self.size = self.file.output.metadata()?.len();
        if let Err(error) = self.remove_old() {
            tracing::warn!(%error, path = %self.path.display(), "old files of the audit log cannot be removed");
        }
        Ok(())
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
    whole(&lines[..room])
}

fn append(path: &Path) -> io::Result<Lines<File>> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    Ok(Lines::new(file))
}

/// Removes as many bytes from the end.
fn cut(file: &File, bytes: usize) -> io::Result<()> {
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(bytes as u64))
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

    /// Names the folder of the file that a process with little room writes.
    const FOLDER: &str = "UMBRA_TEST_AUDIT_FOLDER";

    #[test]
    fn a_file_without_room_has_whole_lines_and_goes_on_when_there_is_some() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            return write_until_full(&Path::new(&folder).join("audit.log"));
        }
        let folder = tempfile::tempdir().unwrap();
        // Files of 4 or 8 KiB, depending on the shell; what is beyond is an error (EFBIG) and no signal.
        let script = "ulimit -f 8 && trap '' XFSZ && exec \"$0\" --exact \"$1\"";
        let this = "audit::file::tests::a_file_without_room_has_whole_lines_and_goes_on_when_there_is_some";
        let mut limited = std::process::Command::new("sh");
        limited
            .args(["-c", script])
            .arg(std::env::current_exe().unwrap())
            .arg(this);
        let output = limited.env(FOLDER, folder.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
        assert!(text.lines().count() >= 4);
        assert!(text.lines().all(|line| line.ends_with("end")), "{text}");
    }

    fn write_until_full(path: &Path) {
        let mut file = RotatingFile::open(path, rotation(u64::MAX, 0)).unwrap();
        let three = format!("{0:900}end\n{0:900}end\n{0:900}end\n", "");
        let mut lines = 0;
        let failed = loop {
            match file.write(three.as_bytes()) {
                Ok(()) => lines += 3,
                Err(failed) => break failed,
            }
        };
        lines += failed.written;
        assert_eq!(
            count(&std::fs::read(path).unwrap()),
            lines,
            "what is told is what is there"
        );
        // There is room for this where there was none for the line.
        file.write(b"short end\n").unwrap();
        assert_eq!(std::fs::metadata(path).unwrap().len(), file.size);
    }

    #[test]
    fn a_file_that_is_gone_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut file = RotatingFile::open(&path, rotation(8, 0)).unwrap();
        file.write(b"one\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write(b"second\nthird\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"third\n");
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

//! Making a backup.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};

use super::{
    ABORTED, BackupError, BackupFile, BackupSummary, DIGEST_LENGTH, END, FILE, HEADER, MAGIC, OBJECT, VERSION, verify,
};
use crate::embedded::Embedded;
use crate::embedded::failure::Failure;
use crate::embedded::read::Reader;
use crate::embedded::tables::Record;
use crate::{Error, Revision};

/// What is written at once.
const BUFFER_BYTES: usize = 1 << 20;

impl Embedded {
    /// Writes a backup, with `files`, to `output`, on a thread of its own, while the store goes on. `progress` is told the
    /// number of objects written, once for every thousand.
    ///
    /// The state that is read stays in the file for as long as the output takes, so the output should have a deadline.
    /// Cancelling does not stop the thread; an output that fails does.
    ///
    /// # Errors
    /// [`BackupError::Io`] where the output fails, [`BackupError::Store`] where the store cannot be read; then the output
    /// says so to whoever reads it.
    pub async fn backup_to<W: Write + Send + 'static>(
        &self,
        files: Vec<BackupFile>,
        output: W,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<BackupSummary, BackupError> {
        let reads = self.inner.reads.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut archive = Archive::new(output);
            let written = reads
                .read_once("reading", |reader| write_all(reader, &files, &mut archive, progress))
                .map_err(BackupError::Store)
                .and_then(std::convert::identity);
            match written {
                Ok(summary) => archive.finish(summary),
                Err(error) => {
                    // The reader of the output learns why; if the output is what failed, there is nobody to tell.
                    let _ = archive.abort(&describe(&error));
                    Err(error)
                }
            }
        });
        task.await
            .unwrap_or_else(|error| Err(BackupError::Store(Error::io("reading", error))))
    }

    /// Writes a backup without further files to the file `path`, readable for its owner only, while the store goes on. The
    /// file is there as a whole or not at all.
    ///
    /// # Errors
    /// As [`backup_to`](Self::backup_to).
    pub async fn backup(&self, path: impl Into<PathBuf>) -> Result<BackupSummary, BackupError> {
        let path = path.into();
        let (beside, output) = create_beside(&path)?;
        let synced = output
            .try_clone()
            .map_err(BackupError::io(format!("{} cannot be written", beside.display())))?;
        let written = self.backup_to(Vec::new(), output, |_| {}).await;
        finish_file(written, &synced, &beside, &path)
    }
}

/// Copies a backup from `input` into the file `path`, readable for its owner only, and checks it on the way. The file is
/// there as a whole or not at all.
///
/// # Errors
/// [`BackupError`], with what is wrong with the backup or with the file.
pub fn copy(input: impl Read, path: &Path, progress: impl FnMut(u64)) -> Result<BackupSummary, BackupError> {
    let (beside, output) = create_beside(path)?;
    let mut tee = Tee {
        input,
        output: BufWriter::with_capacity(BUFFER_BYTES, &output),
        failure: None,
    };
    let mut copied = verify(&mut tee, progress);
    // An output that fails ends the input too; the output is what to tell.
    if let Some(source) = tee.failure.take().or_else(|| tee.output.flush().err()) {
        copied = Err(BackupError::io(format!("{} cannot be written", beside.display()))(
            source,
        ));
    }
    drop(tee);
    finish_file(copied, &output, &beside, path)
}

fn create_beside(path: &Path) -> Result<(PathBuf, std::fs::File), BackupError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".partial");
    let beside = PathBuf::from(beside);
    // Made anew, so that its mode is this one.
    let _ = std::fs::remove_file(&beside);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside);
    let file = file.map_err(BackupError::io(format!("{} cannot be written", beside.display())))?;
    Ok((beside, file))
}

fn finish_file(
    written: Result<BackupSummary, BackupError>,
    file: &std::fs::File,
    beside: &Path,
    path: &Path,
) -> Result<BackupSummary, BackupError> {
    let finished = written.and_then(|summary| {
        file.sync_all()
            .and_then(|()| std::fs::rename(beside, path))
            .and_then(|()| crate::embedded::open::sync_directory(path))
            .map_err(BackupError::io(format!("{} cannot be written", path.display())))?;
        Ok(summary)
    });
    if finished.is_err() {
        let _ = std::fs::remove_file(beside);
    }
    finished
}

/// Passes on what it reads.
struct Tee<R, W: Write> {
    input: R,
    output: W,
    failure: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if let Err(error) = self.output.write_all(&buffer[..count]) {
            self.failure = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(count)
    }
}

/// The outer error is the database's.
fn write_all<W: Write>(
    reader: &Reader<'_>,
    files: &[BackupFile],
    archive: &mut Archive<W>,
    mut progress: impl FnMut(u64),
) -> Result<Result<BackupSummary, BackupError>, Failure> {
    let mut summary = BackupSummary {
        revision: reader.revision,
        created: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
        objects: 0,
        bytes: 0,
        files: files.iter().map(|file| file.name.clone()).collect(),
    };
    if let Err(error) = archive.begin(&summary, files) {
        return Ok(Err(error));
    }
    let mut failed = None;
    reader.walk_records(|revision, record| {
        if let Err(error) = archive.object(revision, record) {
            failed = Some(error);
            return std::ops::ControlFlow::Break(());
        }
        summary.objects += 1;
        if summary.objects.is_multiple_of(1_000) {
            progress(summary.objects);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Ok(Err(error));
    }
    let expected = reader.key_count()?;
    if summary.objects != expected {
        return Err(Failure::Damaged(format!(
            "it has {} keys where it should have {expected}",
            summary.objects
        )));
    }
    Ok(Ok(summary))
}

/// A backup as it is written.
struct Archive<W: Write> {
    output: BufWriter<W>,
    digest: Context,
    bytes: u64,
}

impl<W: Write> Archive<W> {
    fn new(output: W) -> Self {
        Self {
            output: BufWriter::with_capacity(BUFFER_BYTES, output),
            digest: Context::new(&SHA256),
            bytes: 0,
        }
    }

    fn begin(&mut self, summary: &BackupSummary, files: &[BackupFile]) -> Result<(), BackupError> {
        self.write(&MAGIC)?;
        self.write(&VERSION.to_le_bytes())?;
        let (revision, created) = (summary.revision.0.to_le_bytes(), summary.created.to_le_bytes());
        self.section(HEADER, &[&revision, &created])?;
        for file in files {
            let length = length(file.name.len())?.to_le_bytes();
            self.section(FILE, &[&length, file.name.as_bytes(), &file.content])?;
        }
        Ok(())
    }

    fn object(&mut self, revision: Revision, record: &Record<'_>) -> Result<(), BackupError> {
        let length = length(record.key.len())?.to_le_bytes();
        self.section(
            OBJECT,
            &[
                &record.create_revision.to_le_bytes(),
                &revision.0.to_le_bytes(),
                &length,
                record.key.as_bytes(),
                record.value,
            ],
        )
    }

    fn abort(&mut self, reason: &str) -> Result<(), BackupError> {
        self.section(ABORTED, &[reason.as_bytes()])?;
        self.output
            .flush()
            .map_err(BackupError::io("the backup cannot be written"))
    }

    fn finish(mut self, mut summary: BackupSummary) -> Result<BackupSummary, BackupError> {
        let files = summary.files.len() as u64;
        self.section(END, &[&summary.objects.to_le_bytes(), &files.to_le_bytes()])?;
        let digest = self.digest.clone().finish();
        debug_assert_eq!(digest.as_ref().len(), DIGEST_LENGTH);
        self.write(digest.as_ref())?;
        self.output
            .flush()
            .map_err(BackupError::io("the backup cannot be written"))?;
        summary.bytes = self.bytes;
        Ok(summary)
    }

    fn section(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), BackupError> {
        let total = length(parts.iter().map(|part| part.len()).sum())?;
        self.write(&[kind])?;
        self.write(&total.to_le_bytes())?;
        parts.iter().try_for_each(|part| self.write(part))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.output
            .write_all(bytes)
            .map_err(BackupError::io("the backup cannot be written"))
    }
}

fn length(bytes: usize) -> Result<u32, BackupError> {
    u32::try_from(bytes).map_err(|_| BackupError::damaged("an object is larger than 4 GiB"))
}

/// The error and its sources in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

//! Reading a backup.

use std::io::{BufReader, Read};

use aws_lc_rs::digest::{Context, SHA256};

use super::{
    ABORTED, BackupError, BackupFile, BackupSummary, DIGEST_LENGTH, END, FILE, HEADER, MAGIC, OBJECT, VERSION,
};
use crate::Revision;

/// Sections above this are not taken for real, so that a damaged length does not become memory: twice what the largest
/// object (3 MiB of a request body, as JSON) and file need.
const LONGEST_SECTION: u32 = 64 << 20;
/// What is read at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Reads a backup to its end and checks it. `progress` is told the number of objects read, once for every thousand.
///
/// # Errors
/// [`BackupError`], with what is wrong.
pub fn verify(input: impl Read, mut progress: impl FnMut(u64)) -> Result<BackupSummary, BackupError> {
    let mut objects = 0_u64;
    read(input, |item| {
        if matches!(item, Item::Object(_)) {
            objects += 1;
            if objects.is_multiple_of(1_000) {
                progress(objects);
            }
        }
        Ok(())
    })
}

/// A part of a backup.
#[derive(Debug)]
pub(super) enum Item {
    File(BackupFile),
    Object(Object),
}

/// An object of a backup.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) create_revision: u64,
    pub(super) revision: u64,
}

/// Reads a backup to its end and checks it; every part goes to `take` before it is known whether the backup is sound.
pub(super) fn read(
    input: impl Read,
    mut take: impl FnMut(Item) -> Result<(), BackupError>,
) -> Result<BackupSummary, BackupError> {
    let mut input = Input {
        input: BufReader::with_capacity(BUFFER_BYTES, input),
        digest: Context::new(&SHA256),
        bytes: 0,
    };
    input.preamble()?;
    let (mut header, mut summary) = (false, empty());
    loop {
        let (kind, content) = input.section()?;
        match kind {
            HEADER if !header => {
                let mut content = Content(&content);
                summary.revision = Revision(content.number()?);
                summary.created = content.number()?;
                header = true;
            }
            ABORTED => {
                let reason = String::from_utf8_lossy(&content).into_owned();
                return Err(BackupError::Aborted { reason });
            }
            FILE if header => {
                let file = file(&content)?;
                summary.files.push(file.name.clone());
                take(Item::File(file))?;
            }
            OBJECT if header => {
                let object = object(&content)?;
                if object.revision > summary.revision.0 || object.create_revision > object.revision {
                    return Err(BackupError::damaged("an object has a revision of the future"));
                }
                summary.objects += 1;
                take(Item::Object(object))?;
            }
            END if header => {
                let mut content = Content(&content);
                if (content.number()?, content.number()?) != (summary.objects, summary.files.len() as u64) {
                    return Err(BackupError::damaged("parts are missing"));
                }
                break;
            }
            _ => return Err(BackupError::damaged("it has a section that is not one")),
        }
    }
    input.finish()?;
    summary.bytes = input.bytes;
    Ok(summary)
}

fn empty() -> BackupSummary {
    BackupSummary {
        revision: Revision(0),
        created: 0,
        objects: 0,
        bytes: 0,
        files: Vec::new(),
    }
}

struct Input<R: Read> {
    input: BufReader<R>,
    digest: Context,
    bytes: u64,
}

impl<R: Read> Input<R> {
    fn preamble(&mut self) -> Result<(), BackupError> {
        let mut magic = [0; MAGIC.len()];
        match self.input.read_exact(&mut magic) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(BackupError::NotABackup),
            read => read.map_err(BackupError::io("the backup cannot be read"))?,
        }
        if magic != MAGIC {
            return Err(BackupError::NotABackup);
        }
        self.note(&magic);
        let mut version = [0; 4];
        self.fill(&mut version)?;
        match u32::from_le_bytes(version) {
            VERSION => Ok(()),
            found if found > VERSION => Err(BackupError::NewerFormat {
                found,
                supported: VERSION,
            }),
            _ => Err(BackupError::damaged("there is no such format")),
        }
    }

    fn section(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length);
        if length > LONGEST_SECTION {
            return Err(BackupError::damaged("a section is too long to be one"));
        }
        let mut content = vec![0; length as usize];
        self.fill(&mut content)?;
        Ok((kind, content))
    }

    /// Compares the digest; nothing may follow it.
    fn finish(&mut self) -> Result<(), BackupError> {
        let expected = self.digest.clone().finish();
        let mut digest = [0; DIGEST_LENGTH];
        self.fill(&mut digest)?;
        if digest != expected.as_ref() {
            return Err(BackupError::damaged("its checksum does not match"));
        }
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(BackupError::damaged("something follows its end")),
            Err(source) => Err(BackupError::io("the backup cannot be read")(source)),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        match self.input.read_exact(buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(BackupError::damaged("it ends too early"));
            }
            read => read.map_err(BackupError::io("the backup cannot be read"))?,
        }
        self.note(buffer);
        Ok(())
    }

    fn note(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

fn file(content: &[u8]) -> Result<BackupFile, BackupError> {
    let mut content = Content(content);
    let name = content.text()?;
    // A backup from elsewhere must not write elsewhere.
    let harmless = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if !name.split('/').all(harmless) {
        return Err(BackupError::damaged(format!(
            "the name {name:?} leads out of the directory"
        )));
    }
    Ok(BackupFile {
        name,
        content: content.0.to_vec(),
    })
}

fn object(content: &[u8]) -> Result<Object, BackupError> {
    let mut content = Content(content);
    Ok(Object {
        create_revision: content.number()?,
        revision: content.number()?,
        key: content.text()?,
        value: content.0.to_vec(),
    })
}

/// What is left of a section.
struct Content<'a>(&'a [u8]);

impl Content<'_> {
    fn number(&mut self) -> Result<u64, BackupError> {
        let (number, rest) = self.0.split_first_chunk::<8>().ok_or_else(short)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn text(&mut self) -> Result<String, BackupError> {
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or_else(short)?;
        let (text, rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(short)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| BackupError::damaged("a name is not UTF-8"))
    }
}

fn short() -> BackupError {
    BackupError::damaged("a section is too short")
}

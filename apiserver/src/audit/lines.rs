//! Lines that stay whole when writing them fails in between.

use std::io::{self, Write};

/// Why lines were not written, and how many were.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(super) struct WriteError {
    /// Lines that are there all the same.
    pub(super) written: usize,
    #[source]
    source: io::Error,
}

impl WriteError {
    /// The same after as many other lines.
    pub(super) fn after(self, lines: usize) -> Self {
        let written = self.written + lines;
        Self { written, ..self }
    }
}

impl From<io::Error> for WriteError {
    fn from(source: io::Error) -> Self {
        Self { written: 0, source }
    }
}

/// Where lines go.
#[derive(Debug)]
pub(super) struct Lines<W> {
    pub(super) output: W,
    /// How many bytes of a line that was not finished are at the end.
    torn: usize,
}

impl<W: Write> Lines<W> {
    /// Begins with a line of its own.
    pub(super) fn new(output: W) -> Self {
        Self { output, torn: 0 }
    }

    /// Writes whole lines, on a line of their own even where the last write has left a part of one.
    ///
    /// # Errors
    /// When not all are written. The last may have been written in part then ([`Lines::torn`]).
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        if self.torn > 0 {
            self.output.write_all(b"\n")?;
            self.torn = 0;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            let failed = match self.output.write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    rest = &rest[count..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let written = &lines[..lines.len() - rest.len()];
            self.torn = written.len() - whole(written);
            return Err(WriteError {
                written: count(written),
                source: failed,
            });
        }
        self.output.flush()?;
        Ok(())
    }

    /// How many bytes of a line that was not finished are at the end.
    pub(super) fn torn(&self) -> usize {
        self.torn
    }

    /// Says that they have been removed.
    pub(super) fn mended(&mut self) {
        self.torn = 0;
    }
}

/// How many lines have ended.
pub(super) fn count(lines: &[u8]) -> usize {
    lines.iter().filter(|byte| **byte == b'\n').count()
}

/// How many bytes are whole lines.
pub(super) fn whole(lines: &[u8]) -> usize {
    lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes what there is room for, some bytes at a time.
    #[derive(Default)]
    struct Disk {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room).min(7);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.extend_from_slice(&bytes[..count]);
            self.room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_breaks_off_does_not_take_the_next_with_it() {
        let mut lines = Lines::new(Disk {
            room: 14,
            ..Disk::default()
        });
        let failed = lines.write(b"first\nsecond\nthird\n").unwrap_err();
        assert_eq!((failed.written, lines.torn()), (2, 1));
        assert_eq!(lines.write(b"lost\n").unwrap_err().written, 0);
        lines.output.room = 100;
        lines.write(b"fourth\n").unwrap();
        lines.write(b"fifth\n").unwrap();
        assert_eq!(lines.output.taken, b"first\nsecond\nt\nfourth\nfifth\n");
    }

    #[test]
    fn what_ends_with_a_line_is_not_torn() {
        let mut lines = Lines::new(Disk {
            room: 6,
            ..Disk::default()
        });
        assert_eq!(lines.write(b"first\nsecond\n").unwrap_err().written, 1);
        lines.output.room = 100;
        lines.write(b"third\n").unwrap();
        assert_eq!(lines.output.taken, b"first\nthird\n");
    }
}

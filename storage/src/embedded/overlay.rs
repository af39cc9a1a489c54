//! A disk that can only be read: what is written stays in memory, and is forgotten with it.
//!
//! A database that was not closed writes when it is opened, if only its header. On a disk that takes no writes this is how it
//! is opened all the same, so that reads go on until the disk is writable again. Nothing but that is ever written here: a
//! few pages.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use parking_lot::Mutex;
use redb::StorageBackend;

use super::medium::Backend;

const BLOCK: usize = 4_096;

/// What is written to it lies over what is below.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Backend,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    blocks: HashMap<u64, Vec<u8>>,
    length: u64,
}

impl Overlay {
    /// Over `below`, which is only read.
    pub(super) fn new(below: Backend) -> io::Result<Self> {
        let length = below.len()?;
        Ok(Self {
            below,
            written: Mutex::new(Written {
                blocks: HashMap::new(),
                length,
            }),
        })
    }

    /// A block of what is below, with zeros after its end.
    fn block(&self, number: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; BLOCK];
        let start = number * BLOCK as u64;
        let there = self.below.len()?.saturating_sub(start).min(BLOCK as u64);
        let there = usize::try_from(there).expect("a block is small");
        if there > 0 {
            self.below.read(start, &mut block[..there])?;
        }
        Ok(block)
    }
}

/// The blocks that a range touches: number, where in the block, how much.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut offset, mut left) = (offset, length);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let start = usize::try_from(offset % BLOCK as u64).expect("a block is small");
        let count = left.min(BLOCK - start);
        let piece = (offset / BLOCK as u64, start, count);
        offset += count as u64;
        left -= count;
        Some(piece)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > written.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        for (number, start, count) in pieces(offset, out.len()) {
            let target = &mut out[done..done + count];
            match written.blocks.get(&number) {
                Some(block) => target.copy_from_slice(&block[start..start + count]),
                None => target.copy_from_slice(&self.block(number)?[start..start + count]),
            }
            done += count;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().length = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        let mut done = 0;
        for (number, start, count) in pieces(offset, data.len()) {
            let block = match written.blocks.entry(number) {
                Entry::Occupied(block) => block.into_mut(),
                Entry::Vacant(place) => place.insert(self.block(number)?),
            };
            block[start..start + count].copy_from_slice(&data[done..done + count]);
            done += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::medium::{Medium, Memory};

    #[test]
    fn what_is_written_stays_above() {
        let memory = Memory::default();
        let below = memory.open(false).unwrap();
        below.set_len(10_000).unwrap();
        below.write(0, &[1; 10_000]).unwrap();
        let overlay = Overlay::new(memory.open(false).unwrap()).unwrap();
        overlay.write(4_000, &[2; 5_000]).unwrap();
        overlay.set_len(12_000).unwrap();
        let mut read = vec![9; 12_000];
        overlay.read(0, &mut read).unwrap();
        let expected: Vec<u8> = [vec![1; 4_000], vec![2; 5_000], vec![1; 1_000], vec![0; 2_000]].concat();
        assert!(read == expected);
        assert!(overlay.read(11_999, &mut [0; 2]).is_err());
        let mut below_now = vec![0; 10_000];
        below.read(0, &mut below_now).unwrap();
        assert!(below_now == vec![1; 10_000]);
    }
}

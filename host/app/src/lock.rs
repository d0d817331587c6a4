//! A run's hold of its folder: a second run on it would write into the first one's checkpoints.
//!
//! The lock is the system's on an open file, and ends with the process however that ends; what stands in the file is for
//! people, and the file stays.

use crate::failure::{Exit, Failure};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

const NAME: &str = "run.lock";
/// Longest note of a holder that is read.
const MAX_NOTE_BYTES: u64 = 64;

pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// # Errors
    /// [`Exit::Refused`] with the process that has it.
    pub fn take(folder: &Path) -> Result<Self, Failure> {
        if let Some(lock) = Self::try_take(folder)? {
            return Ok(lock);
        }
        let mut note = String::new();
        // A holder that has not written yet, or a file that somebody has changed: then nobody is named.
        let _ = File::open(folder.join(NAME))?.take(MAX_NOTE_BYTES).read_to_string(&mut note);
        let holder = note.trim().parse::<u32>().map_or("another process".into(), |id| format!("process {id}"));
        let message = format!("{} is being trained in by {holder}; --out names another folder", folder.display());
        Err(Failure::new(Exit::Refused, message))
    }

    /// `None` where somebody else has it.
    pub fn try_take(folder: &Path) -> std::io::Result<Option<Self>> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(folder.join(NAME))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(Self { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_next_one_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        assert!(FolderLock::try_take(folder.path()).unwrap().is_none());
        let refused = FolderLock::take(folder.path()).err().expect("it is taken");
        assert_eq!(refused.exit, Exit::Refused);
        assert!(refused.message.contains(&format!("process {}", std::process::id())), "{}", refused.message);
        std::fs::write(folder.path().join(NAME), [0xff; 200]).unwrap();
        let refused = FolderLock::take(folder.path()).err().expect("it is taken");
        assert!(refused.message.contains("another process"), "{}", refused.message);
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }
}

//! Locks that keep two commands from writing one file.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};

/// `ENOLCK` of Linux: a network file system whose locks are out of order.
const NO_LOCKS: i32 = 37;

/// Takes the lock of a file, which is held until the file is closed; `false` where another has it. A
/// file system without locks grants all: better unguarded than unusable.
///
/// # Errors
/// Any other of the system.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(e))
            if e.kind() == ErrorKind::Unsupported || e.raw_os_error() == Some(NO_LOCKS) =>
        {
            Ok(true)
        }
        Err(TryLockError::Error(e)) => Err(e),
    }
}

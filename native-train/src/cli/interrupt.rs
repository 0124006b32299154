//! Interrupts (Ctrl-C, SIGTERM) for verbs whose work can end in order and go on later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Result, TrainError};

/// Listens until it is dropped; from then on an interrupt ends the command at once.
#[derive(Debug)]
pub(super) struct Interrupts {
    flag: Arc<AtomicBool>,
    listening: Arc<AtomicBool>,
}

impl Interrupts {
    /// Starts to listen; once in a command.
    ///
    /// # Errors
    /// [`TrainError::Usage`] where the system does not allow it.
    pub(super) fn listen() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let listening = Arc::new(AtomicBool::new(true));
        let (set, heard) = (Arc::clone(&flag), Arc::clone(&listening));
        ctrlc::set_handler(move || {
            if !heard.load(Ordering::Relaxed) {
                // What a shell reports for a command that an interrupt ended.
                std::process::exit(130);
            }
            set.store(true, Ordering::Relaxed);
        })
        .map_err(|e| TrainError::usage(format!("cannot listen for interrupts: {e}")))?;
        Ok(Self { flag, listening })
    }

    /// Set by an interrupt.
    pub(super) fn flag(&self) -> &AtomicBool {
        &self.flag
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.listening.store(false, Ordering::Relaxed);
    }
}

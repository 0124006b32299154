//! Long work that is stopped by an interrupt and taken up by the same command.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Result, TrainError};

/// A killed command loses at most about this much work.
pub const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Told to the user once [`listen`] has been called.
pub const STOPPABLE: &str = "Ctrl-C stops, the same command goes on";

/// Status of a command that the second interrupt ends at once, as a shell reports it.
const KILLED: i32 = 130;

/// What stops and what continues a piece of work.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// Asked between steps; once true, the work saves its state and ends.
    pub interrupted: &'a (dyn Fn() -> bool + Sync),
    /// Where unfinished work is kept; `None` keeps none.
    pub state: Option<&'a Path>,
}

impl Control<'_> {
    /// Nothing stops the work, and nothing of it is kept.
    pub fn none() -> Self {
        Self { interrupted: &|| false, state: None }
    }
}

impl std::fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Lets the first interrupt (Ctrl-C) set a flag; what is in work then ends in order. The second
/// ends the process where it is, which leaves no half-written file either.
///
/// # Errors
/// [`TrainError::Usage`] where the system does not let us listen.
pub fn listen(interrupted: &Arc<AtomicBool>) -> Result<()> {
    let flag = Arc::clone(interrupted);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(KILLED);
        }
    })
    .map_err(|e| TrainError::usage(format!("cannot listen for interrupts: {e}")))
}

//! Interrupts and time limits: work that can be taken up again ends in order, other work at once.
//!
//! Every artefact is written whole and renamed, so ending the process at any point leaves no
//! half of a file behind.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use indicatif::ProgressBar;
// Ends the process without the exit handlers of libraries: libtorch's free what its own threads,
// which are still at work, use.
use signal_hook::low_level::exit;

use crate::error::{Result, TrainError};
use crate::stderr::say;

/// A killed command loses at most about this much work.
pub const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Shown to the user once a [`Watch`] listens.
pub const STOPPABLE: &str = "Ctrl-C stops, the same command goes on";

/// Shows that work begins at a place which earlier work came to: the rate and the time left are of
/// what follows.
pub fn goes_on_from(progress: &ProgressBar, done: u64) {
    progress.set_position(done);
    // The place itself would count as work of no time.
    progress.tick();
    progress.reset_eta();
}

/// What stops a piece of work, and where it keeps its state to go on from.
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

/// Exit status of a process that was interrupted: that of a shell for SIGINT.
const INTERRUPTED: i32 = 130;

/// Exit status of a command that stopped at its time limit and goes on when it is called again
/// (`EX_TEMPFAIL` of sysexits.h).
pub const PAUSED: u8 = 75;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static WATCHES: AtomicUsize = AtomicUsize::new(0);
static PAUSE: AtomicBool = AtomicBool::new(false);
static HANDLER: OnceLock<Result<(), String>> = OnceLock::new();

/// While it lives, somebody polls [`is_requested`], so an interrupt only sets it. Without a watch,
/// and at the second interrupt, the process ends.
#[derive(Debug)]
pub struct Watch(());

impl Watch {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`TrainError::Usage`] when the system does not let us.
    pub fn start() -> Result<Self> {
        HANDLER
            .get_or_init(|| ctrlc::set_handler(on_interrupt).map_err(|e| e.to_string()))
            .as_ref()
            .map_err(|e| TrainError::usage(format!("cannot listen for interrupts: {e}")))?;
        WATCHES.fetch_add(1, Ordering::SeqCst);
        Ok(Self(()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::SeqCst);
    }
}

fn on_interrupt() {
    let again = REQUESTED.swap(true, Ordering::SeqCst);
    if again || WATCHES.load(Ordering::SeqCst) == 0 {
        exit(INTERRUPTED);
    }
}

/// From `limit` on, the command stops as at an interrupt. Work that cannot end in order is then
/// ended with the exit status [`PAUSED`].
pub fn pause_after(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        PAUSE.store(true, Ordering::SeqCst);
        REQUESTED.store(true, Ordering::SeqCst);
        if WATCHES.load(Ordering::SeqCst) == 0 {
            say(format_args!("tigret: {}", TrainError::Paused));
            exit(PAUSED.into());
        }
    });
}

/// Whether the command was asked to stop, even if the work that could have noticed had ended by
/// then.
pub fn is_requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Whether the time limit of [`pause_after`] is over.
pub fn is_paused() -> bool {
    PAUSE.load(Ordering::SeqCst)
}

//! Interrupts and time limits: work that can be taken up again ends in order, other work at once.
//!
//! Every artefact is written whole and renamed, so ending the process at any point leaves no
//! half of a file behind.

use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;
use std::{fs, io, process, thread};

use indicatif::ProgressBar;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
// `exit` ends the process without the exit handlers of libraries: libtorch's free what its own
// threads, which are still at work, use.
use signal_hook::low_level::{emulate_default_handler, exit};

use crate::error::{Result, TrainError};
use crate::stderr::say;

/// A killed command loses at most about this much work.
pub const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Work is worth a save that took this many times as long as the save does.
pub(crate) const WORK_PER_SAVE: u32 = 20;

/// Shown to the user while a [`Watch`] lives.
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

/// Exit status of a command that stopped at its time limit and goes on when it is called again
/// (`EX_TEMPFAIL` of sysexits.h).
pub const PAUSED: i32 = 75;

/// What interrupts a command: Ctrl-C, a supervisor, a terminal that is closed.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

static REQUESTED: AtomicBool = AtomicBool::new(false);
/// The last signal.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static WATCHES: AtomicUsize = AtomicUsize::new(0);
static PAUSE: AtomicBool = AtomicBool::new(false);
static LISTENER: OnceLock<Result<(), String>> = OnceLock::new();

/// Listens for interrupts from now on. A signal that is ignored already stays ignored, as `nohup` wants
/// it, and a shell that runs a command in the background of a script.
///
/// # Errors
/// [`TrainError::Usage`] when the system does not let us.
pub fn listen() -> Result<()> {
    let begin = || -> io::Result<()> {
        let ignored = ignored_signals(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let mut signals =
            Signals::new(SIGNALS.into_iter().filter(|s| ignored >> (s - 1) & 1 == 0))?;
        thread::Builder::new().spawn(move || signals.forever().for_each(on_interrupt)).map(drop)
    };
    LISTENER
        .get_or_init(|| begin().map_err(|e| e.to_string()))
        .as_ref()
        .map_err(|e| TrainError::usage(format!("cannot listen for interrupts: {e}")))
        .copied()
}

/// The mask of ignored signals, the first in its lowest bit; none where the system does not tell, as
/// outside of Linux.
fn ignored_signals(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// While it lives, somebody polls [`is_requested`], so an interrupt only sets it. Without a watch,
/// and at the second interrupt, the process ends.
#[derive(Debug)]
pub struct Watch(());

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    /// As [`listen`].
    pub fn start() -> Result<Self> {
        listen()?;
        WATCHES.fetch_add(1, Ordering::SeqCst);
        Ok(Self(()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::SeqCst);
    }
}

fn on_interrupt(signal: i32) {
    SIGNAL.store(signal, Ordering::SeqCst);
    let again = REQUESTED.swap(true, Ordering::SeqCst);
    if again || WATCHES.load(Ordering::SeqCst) == 0 {
        end_by_signal();
    }
}

/// Ends the process as the signal that interrupted it would have: only so a shell ends the loop or
/// script that called it, too.
pub fn end_by_signal() -> ! {
    let signal = SIGNAL.load(Ordering::SeqCst);
    // A container's first process cannot be ended by a signal of its own.
    if process::id() != 1 {
        let _ = emulate_default_handler(signal);
    }
    exit(128 + signal)
}

/// From `limit` on, the command stops as at an interrupt. Work that cannot end in order is then
/// ended with the exit status [`PAUSED`].
///
/// # Errors
/// [`TrainError::Usage`] where the system grants no thread to wait in.
pub fn pause_after(limit: Duration) -> Result<()> {
    let wait = move || {
        thread::sleep(limit);
        // What was interrupted before stays so: it is not to be called again.
        PAUSE.store(SIGNAL.load(Ordering::SeqCst) == 0, Ordering::SeqCst);
        REQUESTED.store(true, Ordering::SeqCst);
        if WATCHES.load(Ordering::SeqCst) == 0 {
            say(format_args!("tigret: {}", TrainError::Paused));
            exit(PAUSED);
        }
    };
    match thread::Builder::new().spawn(wait) {
        Ok(_) => Ok(()),
        Err(none) => Err(TrainError::no_thread(&none)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_tells_which_signals_are_ignored() {
        let status = "Name:\ttigret\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        let ignored = |signal: i32| ignored_signals(status) >> (signal - 1) & 1 == 1;
        assert!(ignored(SIGHUP) && !ignored(SIGINT) && !ignored(SIGTERM));
        assert_eq!(ignored_signals("SigIgn: what\n"), 0);
        assert_eq!(ignored_signals(""), 0);
    }
}

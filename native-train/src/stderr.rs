//! What is said to people while work goes on.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line to standard error. Where nobody reads it any more (`2>&1 | head`), or it cannot be
/// written (a full disk), the work goes on all the same.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

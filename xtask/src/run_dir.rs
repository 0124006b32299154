//! A run directory of `tigret`, looked at before a verb works for minutes on what it needs of it.

use std::path::Path;

use crate::error::{Error, Result};

/// Refuses a folder that lacks an artefact; `verbs` are those that make all of them.
///
/// # Errors
/// With the first artefact that is not there.
pub(crate) fn check(run: &Path, artefacts: &[&str], verbs: &str) -> Result<()> {
    if !run.is_dir() {
        return Err(Error::file(run, format!("is not a run directory; make one with {verbs}")));
    }
    match artefacts.iter().find(|name| !run.join(name).is_file()) {
        None => Ok(()),
        Some(missing) => {
            Err(Error::file(run, format!("there is no {missing}; make the run with {verbs}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_run_has_all_its_artefacts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run = folder.path().join("run");
        let said = || check(&run, &["a", "model/b"], "`tigret train`").map_err(|e| e.to_string());
        let refused = |what: &str| said().is_err_and(|said| said.contains(what));
        assert!(refused("run: is not a run directory; make one with `tigret train`"));
        fs::create_dir_all(run.join("model")).expect("made");
        fs::write(run.join("a"), "").expect("written");
        assert!(refused("run: there is no model/b; make the run with `tigret train`"));
        fs::write(run.join("model/b"), "").expect("written");
        assert_eq!(said(), Ok(()));
    }
}

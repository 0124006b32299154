//! Tensors in one safetensors file or, where they are many, in several files with an index, as
//! `transformers` lays them out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirEntry};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Element, Header, Notes, Values, f32_blocks};
use crate::error::{Result, TrainError};
use crate::files::{UNFINISHED, open_file, read_bytes, read_json, remove_if_there, write_json};
use crate::hash::hex;

/// Weights on the host: shape and row-major values by name.
pub type HostWeights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Largest file of a checkpoint in bytes; a single tensor that is larger has a file of its own.
const SHARD_BYTES: usize = 16 << 20;

/// The index of a checkpoint in several files, as `transformers` lays it out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Index {
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Reads an index; `hint` says how to make it where it is missing.
    ///
    /// # Errors
    /// [`TrainError::File`]; also for one that names something else than files beside it.
    pub(crate) fn read(path: &Path, hint: &str) -> Result<Self> {
        let index: Self = read_json(path, hint)?;
        let is_beside = |name: &&str| Path::new(name).file_name().is_some_and(|own| own == *name);
        if let Some(name) = index.files().iter().find(|name| !is_beside(name)) {
            let reason = format!("names \"{name}\", which is not a file beside it");
            return Err(TrainError::file(path, reason));
        }
        Ok(index)
    }

    /// The files that it names.
    pub(crate) fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    fn notes(self) -> Notes {
        let text = |(key, value): (String, Value)| Some((key, value.as_str()?.to_owned()));
        self.metadata.into_iter().filter_map(text).collect()
    }
}

fn index_path(folder: &Path, stem: &str) -> PathBuf {
    folder.join(format!("{stem}.safetensors.index.json"))
}

/// Writes finite `f32` tensors and text metadata: `STEM.safetensors`, or, where that would be
/// larger than 16 MiB, several files named by their content and `STEM.safetensors.index.json`.
///
/// What was there before stays readable until the last file is in place.
///
/// # Errors
/// [`TrainError::File`]; also for a value that is not finite.
pub fn write_tensors(
    folder: &Path,
    stem: &str,
    tensors: &HostWeights,
    mut metadata: Notes,
) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| TrainError::file(folder, e))?;
    let whole = folder.join(format!("{stem}.safetensors"));
    if let Some((name, _)) =
        tensors.iter().find(|(_, (_, values))| values.iter().any(|v| !v.is_finite()))
    {
        let reason = format!(
            "not written: `{name}` is not finite, the training has diverged; lower its learning rate"
        );
        return Err(TrainError::file(&whole, reason));
    }
    // `transformers` refuses a safetensors file that does not name its framework.
    metadata.insert("format".to_owned(), "pt".to_owned());
    let index = index_path(folder, stem);
    let shards = shards(tensors);
    let mut current = BTreeSet::new();
    if let [_] = shards[..] {
        write_shard(&whole, &shards[0], metadata)?;
        remove_if_there(&index)?;
    } else {
        let mut weight_map = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            let mut hash = Sha256::new();
            for (_, (_, values)) in shard {
                f32_blocks(values).for_each(|block| hash.update(block));
            }
            let (hash, of) = (&hex(hash)[..12], shards.len());
            let name = format!("{stem}-{hash}-{:05}-of-{of:05}.safetensors", number + 1);
            let format = Notes::from([("format".to_owned(), "pt".to_owned())]);
            write_shard(&folder.join(&name), shard, format)?;
            weight_map.extend(shard.iter().map(|(key, _)| ((*key).clone(), name.clone())));
            current.insert(name);
        }
        let metadata = metadata.into_iter().map(|(key, text)| (key, text.into())).collect();
        write_json(&index, &Index { metadata, weight_map })?;
        remove_if_there(&whole)?;
    }
    remove_old_shards(folder, stem, &current)
}

/// A tensor's name, shape and values.
type Named<'a> = (&'a String, &'a (Vec<usize>, Vec<f32>));

/// Consecutive tensors together as long as they fit into one file.
fn shards(tensors: &HostWeights) -> Vec<Vec<Named<'_>>> {
    let mut shards = vec![Vec::new()];
    let mut bytes = 0;
    for (name, tensor) in tensors {
        // Its values, and generously its place in the header.
        let more = 4 * tensor.1.len() + name.len() + 128;
        if bytes + more > SHARD_BYTES && bytes > 0 {
            shards.push(Vec::new());
            bytes = 0;
        }
        bytes += more;
        let last = shards.len() - 1;
        shards[last].push((name, tensor));
    }
    shards
}

fn write_shard(path: &Path, shard: &[Named<'_>], notes: Notes) -> Result<()> {
    let tensors = shard
        .iter()
        .map(|(name, (shape, values))| (name.as_str(), shape.clone(), Values::F32(values)));
    super::write(path, tensors.collect(), notes)
}

/// Removes what an index that is no longer there named, and what a killed command did not finish:
/// names follow from the content, so nothing would take its place.
fn remove_old_shards(folder: &Path, stem: &str, current: &BTreeSet<String>) -> Result<()> {
    for name in names_in(folder)? {
        let whole = name.strip_suffix(UNFINISHED).unwrap_or(&name);
        if is_shard(whole, stem) && !current.contains(&name) {
            remove_if_there(&folder.join(name))?;
        }
    }
    Ok(())
}

/// The names of files that an index of this stem names, or named once.
fn shards_in(folder: &Path, stem: &str) -> Result<Vec<String>> {
    let mut names = names_in(folder)?;
    names.retain(|name| is_shard(name, stem));
    names.sort_unstable();
    Ok(names)
}

fn is_shard(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".safetensors"))
        .is_some_and(|rest| rest.contains("-of-"))
}

fn names_in(folder: &Path) -> Result<Vec<String>> {
    let failed = |e| TrainError::file(folder, e);
    let name = |entry: io::Result<DirEntry>| {
        Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())
    };
    fs::read_dir(folder).map_err(failed)?.map(name).collect()
}

/// The files of a checkpoint that are there: the whole, or the index and the files beside it.
///
/// # Errors
/// [`TrainError::File`] for a folder that cannot be read.
pub fn files(folder: &Path, stem: &str) -> Result<Vec<PathBuf>> {
    let mut files = vec![folder.join(format!("{stem}.safetensors")), index_path(folder, stem)];
    files.retain(|file| file.exists());
    if folder.is_dir() {
        files.extend(shards_in(folder, stem)?.into_iter().map(|name| folder.join(name)));
    }
    Ok(files)
}

/// Where the tensors of a stem are to be read.
enum Found {
    /// In one file, which goes before an index, as `transformers` has it: that writes a whole model
    /// beside the index of an earlier one.
    Whole(PathBuf),
    /// In the files that this one names.
    Index(PathBuf),
}

impl Found {
    fn new(folder: &Path, stem: &str) -> Self {
        let (whole, index) = (folder.join(format!("{stem}.safetensors")), index_path(folder, stem));
        if index.exists() && !whole.exists() { Self::Index(index) } else { Self::Whole(whole) }
    }
}

/// Reads what [`write_tensors`] or `transformers` wrote: `STEM.safetensors`, or the files that its
/// index names; `hint` says how to make it where neither is there.
///
/// # Errors
/// [`TrainError::File`] for a file that is missing, damaged or holds non-finite values.
pub fn read_tensors(folder: &Path, stem: &str, hint: &str) -> Result<(HostWeights, Notes)> {
    let path = match Found::new(folder, stem) {
        Found::Whole(path) => return read_file(&path, hint),
        Found::Index(path) => path,
    };
    let index = Index::read(&path, hint)?;
    let mut tensors = HostWeights::new();
    for name in index.files() {
        let part = folder.join(name);
        tensors.extend(read_file(&part, &format!("{} names it", path.display()))?.0);
    }
    if let Some(name) = index.weight_map.keys().find(|&name| !tensors.contains_key(name)) {
        return Err(TrainError::file(&path, format!("`{name}` is in none of the files it names")));
    }
    Ok((tensors, index.notes()))
}

/// The metadata that [`read_tensors`] gives, without reading a tensor.
///
/// # Errors
/// [`TrainError::File`] for a file that is missing or whose header is damaged.
pub fn read_notes(folder: &Path, stem: &str, hint: &str) -> Result<Notes> {
    let path = match Found::new(folder, stem) {
        Found::Whole(path) => path,
        Found::Index(path) => return Ok(Index::read(&path, hint)?.notes()),
    };
    let mut file = BufReader::new(open_file(&path, hint)?);
    let header = Header::read(&mut file).map_err(|e| TrainError::file(&path, e))?;
    Ok(header.notes())
}

/// Reads every float tensor of a safetensors file as `f32`, and the metadata.
fn read_file(path: &Path, hint: &str) -> Result<(HostWeights, Notes)> {
    let bytes = read_bytes(path, hint)?;
    let failed = |e| TrainError::file(path, format!("not a valid safetensors file: {e}"));
    let (file, notes) = super::parse(&bytes).map_err(failed)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let element = Element::of(view.dtype()).filter(|&element| element != Element::F64);
        let Some(element) = element else {
            return Err(TrainError::file(
                path,
                format!("tensor `{name}` has type {:?}; expected F32, F16 or BF16", view.dtype()),
            ));
        };
        let values = element.floats(view.data());
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(TrainError::file(
                path,
                format!("tensor `{name}`: value {at} is not finite"),
            ));
        }
        tensors.insert(name, (view.shape().to_vec(), values));
    }
    Ok((tensors, notes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::unfinished;

    fn tensors(count: usize, rows: usize, value: f32) -> HostWeights {
        (0..count)
            .map(|i| (format!("w{i}"), (vec![rows, 1024], vec![value + i as f32; rows * 1024])))
            .collect()
    }

    fn files(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_large_checkpoint_is_several_small_files_and_replaces_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let metadata = || Notes::from([("step".to_owned(), "7".to_owned())]);
        write_tensors(at, "last", &tensors(2, 8, 0.0), metadata()).unwrap();
        assert_eq!(files(at), ["last.safetensors"]);
        for value in [1.0, 2.0] {
            // 5 tensors of 6 MiB: two a file.
            let large = tensors(5, 1536, value);
            write_tensors(at, "last", &large, metadata()).unwrap();
            let (read, found) = read_tensors(at, "last", "").unwrap();
            assert_eq!(read, large);
            assert_eq!(found["step"], "7");
            assert_eq!(read_notes(at, "last", "").unwrap(), found);
            let names = files(at);
            assert_eq!(names.len(), 4, "{names:?}");
            for name in &names {
                assert!(fs::metadata(at.join(name)).unwrap().len() <= SHARD_BYTES as u64);
            }
        }
        // What a killed command left goes with the rest.
        fs::write(unfinished(&at.join("last-0-00001-of-00002.safetensors")), "half").unwrap();
        write_tensors(at, "last", &tensors(2, 8, 3.0), metadata()).unwrap();
        assert_eq!(files(at), ["last.safetensors"]);
        let (read, found) = read_tensors(at, "last", "").unwrap();
        assert_eq!(read, tensors(2, 8, 3.0));
        assert_eq!(read_notes(at, "last", "").unwrap(), found);
    }

    #[test]
    fn a_whole_file_goes_before_the_index_of_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        write_tensors(at, "model", &tensors(5, 1536, 1.0), Notes::new()).unwrap();
        // As `save_pretrained` does in a folder of ours.
        let (other, notes) =
            (tempfile::tempdir().unwrap(), Notes::from([("a".into(), "b".into())]));
        write_tensors(other.path(), "model", &tensors(2, 8, 4.0), notes).unwrap();
        fs::copy(other.path().join("model.safetensors"), at.join("model.safetensors")).unwrap();
        let (read, found) = read_tensors(at, "model", "").unwrap();
        assert_eq!((read, found["a"].as_str()), (tensors(2, 8, 4.0), "b"));
        assert_eq!(read_notes(at, "model", "").unwrap(), found);
    }

    #[test]
    fn an_index_is_refused_that_leads_astray_or_lacks_a_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        write_tensors(at, "part", &tensors(1, 8, 0.0), Notes::new()).unwrap();
        let refused = |map: Value| {
            let index = serde_json::json!({ "weight_map": map });
            fs::write(at.join("model.safetensors.index.json"), index.to_string()).unwrap();
            read_tensors(at, "model", "").unwrap_err().to_string()
        };
        let error = refused(serde_json::json!({"w0": "../part.safetensors"}));
        assert!(error.contains("not a file beside it"), "{error}");
        let error = refused(serde_json::json!({"w1": "part.safetensors"}));
        assert!(error.contains("`w1` is in none"), "{error}");
        let error = refused(serde_json::json!({"w0": "gone.safetensors"}));
        assert!(error.contains("gone.safetensors: not found"), "{error}");
    }

    #[test]
    fn weights_that_are_not_finite_are_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut broken = tensors(2, 1, 0.0);
        write_tensors(folder.path(), "last", &broken, Notes::new()).unwrap();
        if let Some((_, values)) = broken.get_mut("w1") {
            values[3] = f32::NAN;
        }
        let error = write_tensors(folder.path(), "last", &broken, Notes::new()).unwrap_err();
        assert!(error.to_string().contains("`w1` is not finite"), "{error}");
        let (kept, _) = read_tensors(folder.path(), "last", "").unwrap();
        assert_eq!(kept, tensors(2, 1, 0.0));
    }
}

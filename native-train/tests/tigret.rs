//! The command as a user runs it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// A folder of a test's own, which goes with it.
pub(crate) struct Place(tempfile::TempDir);

impl Deref for Place {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.0.path()
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file, packed where its name ends in `.gz`, and the folders that it is in.
    pub(crate) fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut encoder = GzEncoder::new(fs::File::create(path).unwrap(), Compression::fast());
            encoder.write_all(bytes.as_ref()).unwrap();
            encoder.finish().unwrap();
        } else {
            fs::write(path, bytes).unwrap();
        }
    }

    /// Writes a safetensors file with a matrix of so many columns.
    pub(crate) fn write_matrix(
        &self,
        name: &str,
        columns: usize,
        numbers: impl Iterator<Item = f32>,
    ) {
        let data: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        let shape = vec![data.len() / 4 / columns, columns];
        let view = TensorView::new(Dtype::F32, shape, &data).unwrap();
        self.write(name, safetensors::serialize([("v", view)], None::<HashMap<_, _>>).unwrap());
    }

    /// Writes the log and the items of a shop whose customers walk through the items in order.
    pub(crate) fn write_shop(&self) {
        let mut log = String::from("user,item,timestamp\n");
        for user in 0..40 {
            for step in 0..8 {
                log += &format!("customer-{user},i{},{}\n", (user + step) % 30, 1000 + step);
            }
        }
        let item = |i| {
            let title = format!("thing {} of kind {}", i % 7, i % 5);
            format!(
                "{}\n",
                json!({"id": format!("i{i}"), "title": title, "brand": format!("b{}", i % 3)})
            )
        };
        self.write("log.csv", log);
        self.write("items.jsonl", (0..30).map(item).collect::<String>());
    }

    /// The text of a file.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.join(name)).unwrap()
    }

    /// The JSON of a file.
    pub(crate) fn read_json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// The codes of a catalogue's items by their ids.
    pub(crate) fn read_codes(&self, name: &str) -> BTreeMap<String, Vec<u64>> {
        let catalog = self.read_json(name);
        let items = catalog["items"].as_array().unwrap().iter();
        let codes = |item: &Value| {
            item["codes"].as_array().unwrap().iter().map(|code| code.as_u64().unwrap()).collect()
        };
        items.map(|item| (item["id"].as_str().unwrap().to_owned(), codes(item))).collect()
    }
}

/// The files of a place that takes long to make, for each test that begins with them.
pub(crate) struct Made(Vec<(PathBuf, Vec<u8>)>);

impl Made {
    pub(crate) fn of(place: &Place) -> Self {
        let read = |file: PathBuf| {
            let bytes = fs::read(place.join(&file)).unwrap();
            (file, bytes)
        };
        Self(files(place).into_iter().map(read).collect())
    }

    /// A place with copies of them.
    pub(crate) fn place(&self) -> Place {
        let at = Place::new();
        for (file, bytes) in &self.0 {
            let path = at.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        at
    }
}

/// The files of a folder and of those in it, by their paths from there.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let name = PathBuf::from(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path()).iter().map(|file| name.join(file))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

/// `tigret` in a folder with the arguments of a line, which blanks divide (a value with a blank in
/// it is added by [`Command::args`]), nothing on standard input, and one thread: tests run beside
/// each other, so that more threads would only wait for each other.
pub(crate) fn tigret(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tigret"));
    command.current_dir(folder).args(line.split_ascii_whitespace()).env("OMP_NUM_THREADS", "1");
    command.stdin(Stdio::null());
    command
}

/// Standard output of a command that must succeed.
pub(crate) fn works(folder: &Path, line: &str) -> String {
    succeeds(&mut tigret(folder, line)).0
}

/// What a command that must succeed prints with `--json`.
pub(crate) fn works_json(folder: &Path, line: &str) -> Value {
    prints_json(&mut tigret(folder, line))
}

/// The same of a command that is made already.
pub(crate) fn prints_json(command: &mut Command) -> Value {
    let text = succeeds(command.arg("--json")).0;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("JSON is printed: {e}: {text}"))
}

/// Standard output and standard error of a command that must succeed.
pub(crate) fn succeeds(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{command:?}: {errors}");
    (String::from_utf8(output.stdout).unwrap(), errors)
}

/// The one line of a command that must refuse, before it says or prints anything else.
pub(crate) fn refuses(folder: &Path, line: &str) -> String {
    let (printed, errors) = failed(&mut tigret(folder, line));
    assert_eq!(printed, "");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors
}

/// The sentence with which a command says why it ends with status 2, as it must: the last line of
/// standard error.
pub(crate) fn fails(command: &mut Command) -> String {
    failed(command).1.lines().last().unwrap_or_default().to_owned()
}

fn failed(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{command:?}: {errors}");
    let said = errors.lines().filter(|line| line.starts_with("tigret: ")).count();
    assert_eq!(said, 1, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    let last = errors.lines().last().unwrap();
    assert!(last.starts_with("tigret: "), "{errors}");
    (String::from_utf8(output.stdout).unwrap(), errors)
}

/// What other programs computed, by its name in the folder of such.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// The folder of a small sentence encoder, with the vectors that Python computes with it.
pub(crate) fn golden_encoder(name: &str) -> PathBuf {
    golden("encoders").join(name)
}

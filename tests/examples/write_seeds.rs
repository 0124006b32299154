//! Writes what fuzzing begins from: a folder for each reader, with its good files and its attacks.
//!
//! `cargo run -p tigret-tests --example write_seeds -- FOLDER`

#![expect(clippy::unwrap_used, reason = "a file that cannot be written ends the program")]

use std::fs;
use std::path::PathBuf;

use tigret_tests::attacks::Attack;
use tigret_tests::readers::Reader;

fn main() {
    let out: PathBuf = std::env::args_os().nth(1).expect("name the folder to write into").into();
    for reader in Reader::all() {
        let folder = out.join(reader.name);
        fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in &reader.good {
            fs::write(folder.join(file), bytes).unwrap();
        }
        // What broke a reader once is where its code has corners.
        for Attack { name, bytes, .. } in reader.attacks() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

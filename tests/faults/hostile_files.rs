//! Files that somebody has changed: whatever is in them, a reader takes them or says in one line
//! what is wrong. It never panics, never hangs, and never takes memory that the file does not.
//!
//! The changes are drawn from a seed. `TIGRET_FUZZ_ROUNDS` sets how many each reader gets; the
//! default is for every test run, `TIGRET_FUZZ_ROUNDS=100000` for a night. `cargo xtask fuzz`
//! gives the same readers files that are chosen by what they reach.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tigret_infer::testing::Random;
use tigret_tests::attacks::Attack;
use tigret_tests::mutation::changed;
use tigret_tests::readers::{Reader, alone};
use tigret_tests::repository;

fn rounds(default: usize) -> usize {
    let own = std::env::var("TIGRET_FUZZ_ROUNDS").ok();
    own.map_or(default, |text| text.parse().expect("TIGRET_FUZZ_ROUNDS is a number"))
}

#[test]
fn good_files_are_taken() {
    let _alone = alone();
    for reader in Reader::all() {
        for (name, bytes) in &reader.good {
            assert_eq!(reader.read(name, bytes).outcome, Ok(()), "{} {name}", reader.name);
        }
    }
}

#[test]
fn changed_files_are_taken_or_refused() {
    let _alone = alone();
    for reader in Reader::all() {
        let mut random = Random::new(1);
        let rounds = rounds(reader.rounds);
        let (mut taken, mut memory, mut time) = (0, 0, Duration::ZERO);
        for round in 0..rounds {
            let (name, good) = &reader.good[round % reader.good.len()];
            let reading = reader.read(name, &changed(good, &mut random));
            taken += usize::from(reading.outcome.is_ok());
            memory = memory.max(reading.memory);
            time = time.max(reading.time);
        }
        println!(
            "{}: {rounds} files, {taken} taken, at most {} KB of memory and {time:?}",
            reader.name,
            memory.div_ceil(1000)
        );
    }
}

/// Files of a megabyte that are wrong in ways that make a reader work.
#[test]
fn a_large_bad_file_is_refused_in_time() {
    let _alone = alone();
    const MEGABYTE: usize = 1_000_000;
    for reader in Reader::all() {
        let good = &reader.good[0].1;
        let repeated: Vec<u8> = good.iter().copied().cycle().take(MEGABYTE).collect();
        let followed = |bytes: Vec<u8>| [&good[..], &bytes].concat();
        let mut random = Random::new(2);
        let noise = (0..MEGABYTE).map(|_| random.below(256) as u8).collect();
        let mut large = vec![
            ("repeated", repeated.clone()),
            ("followed by noise", followed(noise)),
            ("followed by zeros", followed(vec![0; MEGABYTE])),
            ("followed by blanks", followed(vec![b' '; MEGABYTE])),
            ("nothing but brackets", vec![b'['; MEGABYTE]),
            ("nothing but braces", "{\"a\":".repeat(MEGABYTE / 5).into()),
            ("nothing but quotes", vec![b'"'; MEGABYTE]),
            ("nothing but line ends", vec![b'\n'; MEGABYTE]),
            ("nothing but commas", vec![b','; MEGABYTE]),
        ];
        large.extend((0..4).map(|_| ("repeated and changed", changed(&repeated, &mut random))));
        let mut slowest = Duration::ZERO;
        let mut taken = BTreeSet::new();
        for (what, bytes) in large {
            let reading = reader.read(what, &bytes);
            slowest = slowest.max(reading.time);
            if reading.outcome.is_ok() {
                taken.insert(what);
            }
        }
        println!("{}: {slowest:?} at most, {taken:?} taken", reader.name);
        // Of the log of a training that goes on, lines that are none are dropped.
        if reader.name != "run-training-log" {
            for nonsense in ["brackets", "braces", "quotes", "commas"] {
                assert!(!taken.contains(&*format!("nothing but {nonsense}")), "{}", reader.name);
            }
            assert!(!taken.contains("followed by noise"), "{}", reader.name);
        }
    }
}

#[test]
fn attacks_are_refused_by_name() {
    let _alone = alone();
    let mut names = BTreeSet::new();
    for reader in Reader::all() {
        let attacks = reader.attacks();
        assert!(!attacks.is_empty(), "nothing attacks {}", reader.name);
        for Attack { name, bytes, sentence } in attacks {
            let refused = reader.read(name, &bytes).outcome.expect_err(name);
            println!("{}/{name}: {refused}", reader.name);
            assert!(refused.contains(sentence), "{}/{name}: {refused}", reader.name);
            names.insert(name);
        }
    }
    for file in fs::read_dir(repository().join("tests/attacks")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&*file), "{file} is not among the attacks");
    }
}

/// Some megabytes that become four hundred.
#[test]
fn compressed_files_that_swell() {
    let _alone = alone();
    let swelling = |start: &str, byte: u8| {
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(start.as_bytes()).unwrap();
        let piece = vec![byte; 1 << 20];
        for _ in 0..400 {
            zipped.write_all(&piece).unwrap();
        }
        zipped.finish().unwrap()
    };
    let (log, items) = (Reader::open("interactions-gzip").unwrap(), Reader::open("items").unwrap());
    for (what, byte) in [("one endless line", b'a'), ("zeros", 0), ("quotes", b'"')] {
        for (reader, name, start) in
            [(&log, "log.csv.gz", "user,item,time\nu1,"), (&items, "items.jsonl.gz", "{\"id\":\"")]
        {
            let reading = reader.read(name, &swelling(start, byte));
            assert!(reading.outcome.is_err(), "{name}, {what}");
            assert!(reading.memory < 256 << 20, "{name}, {what}: {} bytes", reading.memory);
        }
    }
}

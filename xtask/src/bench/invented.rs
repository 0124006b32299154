//! Data of a shop that is nobody's, as large as asked for. The same for the same numbers.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// The numbers of a vector, as many as the paper's text encoder has.
pub(super) const DIMENSIONS: usize = 768;

const KINDS: [&str; 12] = [
    "kettle", "lamp", "stool", "mug", "bowl", "basket", "blanket", "clock", "shelf", "mirror",
    "tray", "vase",
];
const LOOKS: [&str; 10] =
    ["red", "blue", "green", "black", "white", "large", "small", "round", "light", "heavy"];
const MATERIALS: [&str; 8] =
    ["oak", "steel", "glass", "linen", "cotton", "bamboo", "copper", "stone"];
const CENTRES: u64 = 1_000;

/// How large a shop is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shop {
    pub(super) users: u64,
    pub(super) items: u64,
    pub(super) interactions: u64,
}

impl Shop {
    /// Writes `user,item,timestamp` as CSV, oldest first. Each user comes equally often; of the items,
    /// a quarter has half of the interactions.
    pub(super) fn write_log(self, path: &Path) -> Result<()> {
        write(path, |file| {
            writeln!(file, "user,item,timestamp")?;
            let mut random = Random(1);
            for time in 0..self.interactions {
                let user = random.below(self.users);
                let share = random.uniform();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "an item's number is far below 2^52"
                )]
                let item = (share * share * self.items as f64) as u64;
                writeln!(file, "customer-{user},item-{item},{}", 1_600_000_000 + time)?;
            }
            Ok(())
        })
    }

    /// Writes the items with a title and a brand as JSONL.
    pub(super) fn write_items(self, path: &Path) -> Result<()> {
        write_items(path, "item", self.items)
    }
}

/// Writes so many items of a name as JSONL.
pub(super) fn write_items(path: &Path, name: &str, count: u64) -> Result<()> {
    write(path, |file| {
        let mut random = Random(2);
        for item in 0..count {
            let (look, material) = (random.one_of(&LOOKS), random.one_of(&MATERIALS));
            let (kind, brand) = (random.one_of(&KINDS), random.below(500));
            writeln!(
                file,
                r#"{{"id":"{name}-{item}","title":"{look} {kind} of {material}","brand":"brand {brand}"}}"#
            )?;
        }
        Ok(())
    })
}

/// Writes a matrix of `rows` x [`DIMENSIONS`] as `.npy`: each row is the sum of one of 1,000 centres,
/// which all matrices share, and noise of the same variance.
pub(super) fn write_vectors(path: &Path, rows: u64, seed: u64) -> Result<()> {
    let mut random = Random(3);
    let centres: Vec<Vec<f32>> =
        (0..CENTRES).map(|_| (0..DIMENSIONS).map(|_| random.centred()).collect()).collect();
    write(path, |file| {
        let header = format!(
            "{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIMENSIONS}), }}"
        );
        // The numbers begin at a multiple of 64; ten bytes precede the header, a line break ends it.
        let padded = (10 + header.len() + 1).next_multiple_of(64) - 10 - 1;
        file.write_all(b"\x93NUMPY\x01\x00")?;
        file.write_all(&u16::try_from(padded + 1).unwrap_or(u16::MAX).to_le_bytes())?;
        writeln!(file, "{header:padded$}")?;
        let mut random = Random(seed);
        let mut row = Vec::with_capacity(4 * DIMENSIONS);
        for _ in 0..rows {
            row.clear();
            for centre in random.one_of(&centres) {
                row.extend((centre + random.centred()).to_le_bytes());
            }
            file.write_all(&row)?;
        }
        Ok(())
    })
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).map_err(|e| Error::file(path, e))?);
    content(&mut file).and_then(|()| file.flush()).map_err(|e| Error::file(path, e))
}

/// `SplitMix64` (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// At least 0 and below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// At least 0 and below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Between -1 and 1.
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    fn centred(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(all.len() as u64)).unwrap_or_default();
        &all[index]
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_shop_has_the_asked_size_and_items_that_exist() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (log, items) = (folder.path().join("log.csv"), folder.path().join("items.jsonl"));
        let shop = Shop { users: 3, items: 4, interactions: 200 };
        shop.write_log(&log).expect("a log");
        shop.write_items(&items).expect("items");

        let items = fs::read_to_string(items).expect("items");
        let ids: Vec<String> = items
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].to_string()
            })
            .collect();
        assert_eq!(ids, ["\"item-0\"", "\"item-1\"", "\"item-2\"", "\"item-3\""]);
        let log = fs::read_to_string(log).expect("a log");
        assert_eq!(log.lines().count(), 201);
        let of = |id: &str| log.lines().filter(|line| line.contains(&format!(",{id},"))).count();
        let counts: Vec<usize> = (0..4).map(|item| of(&format!("item-{item}"))).collect();
        assert_eq!(counts.iter().sum::<usize>(), 200, "every item is one of the four");
        assert!(counts[0] > counts[3] && counts[3] > 0, "{counts:?}");
    }

    #[test]
    fn vectors_are_a_whole_npy_file_and_follow_from_their_seed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("v.npy");
        let bytes = |seed| {
            write_vectors(&path, 5, seed).expect("vectors");
            fs::read(&path).expect("vectors")
        };
        let file = bytes(7);
        let header = usize::from(u16::from_le_bytes([file[8], file[9]]));
        assert_eq!((10 + header) % 64, 0);
        assert_eq!(file.len(), 10 + header + 4 * 5 * DIMENSIONS);
        assert!(String::from_utf8_lossy(&file[10..10 + header]).contains("'shape': (5, 768)"));
        assert_eq!(bytes(7), file);
        assert_ne!(bytes(8), file);
    }
}

//! Scalars for TensorBoard: event files, records with masked CRC-32C around protocol-buffer
//! messages (`tensorflow/core/lib/io/record_writer.h`, `tensorflow/core/util/event.proto`).
//!
//! Three messages of two fields each do not need a protocol-buffer compiler.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Result, TrainError};

/// Writes one event file.
#[derive(Debug)]
pub(super) struct EventWriter {
    file: File,
}

impl EventWriter {
    /// Opens a new event file in `folder`. What earlier files have from `first_step` on is marked
    /// as superseded: a resumed run computes it again.
    ///
    /// # Errors
    /// [`TrainError::File`].
    pub(super) fn create(folder: &Path, first_step: u64) -> Result<Self> {
        let seconds = wall_time();
        // TensorBoard knows its files by this name, and reads them in the order of their names.
        let name = format!("events.out.tfevents.{:010}.{}", seconds as u64, std::process::id());
        let path = folder.join(name);
        let open = || -> io::Result<Self> {
            fs::create_dir_all(folder)?;
            let mut writer = Self { file: File::create(&path)? };
            writer.event(0, &field_bytes(3, b"brain.Event:2"))?;
            // SessionLog { status: START }
            writer.event(first_step, &field_bytes(7, &field_varint(1, 1)))?;
            Ok(writer)
        };
        open().map_err(|e| TrainError::file(&path, e))
    }

    /// Writes named values of a step.
    ///
    /// # Errors
    /// As the file system reports them.
    pub(super) fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> io::Result<()> {
        let summary: Vec<u8> = values
            .iter()
            .flat_map(|(tag, value)| {
                let mut message = field_bytes(1, tag.as_bytes());
                message.extend([(2 << 3) | 5]);
                message.extend((*value as f32).to_le_bytes());
                field_bytes(1, &message)
            })
            .collect();
        self.event(step, &field_bytes(5, &summary))
    }

    fn event(&mut self, step: u64, what: &[u8]) -> io::Result<()> {
        let mut message = vec![(1 << 3) | 1];
        message.extend(wall_time().to_le_bytes());
        message.extend(field_varint(2, step));
        message.extend(what);
        let length = (message.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(&message);
        record.extend(masked_crc(&message).to_le_bytes());
        // In one write, so that a reader who follows the file sees whole records.
        self.file.write_all(&record)
    }
}

fn wall_time() -> f64 {
    // A clock before 1970 is of no use to a plot; nothing else depends on it.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value as u8) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field_varint(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn field_bytes(field: u64, bytes: &[u8]) -> Vec<u8> {
    [varint((field << 3) | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_framed_as_tensorflow_reads_them() {
        // The CRC of RFC 3720, appendix B.4, for 32 zero bytes.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 300).unwrap();
        writer.scalars(350, &[("train/loss", 2.5)]).unwrap();
        let entry = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        let mut rest = &fs::read(entry.path()).unwrap()[..];
        let mut messages = Vec::new();
        while let Some((length, tail)) = rest.split_at_checked(8) {
            let bytes = u64::from_le_bytes(length.try_into().unwrap()) as usize;
            assert_eq!(tail[..4], masked_crc(length).to_le_bytes());
            messages.push(tail[4..4 + bytes].to_vec());
            assert_eq!(
                tail[4 + bytes..8 + bytes],
                masked_crc(&messages[messages.len() - 1]).to_le_bytes()
            );
            rest = &tail[8 + bytes..];
        }
        assert!(rest.is_empty());
        // After the time (9 bytes): step, then the field of each kind.
        assert_eq!(messages[0][9..], [b"\x10\x00\x1a\x0d".as_slice(), b"brain.Event:2"].concat());
        assert_eq!(messages[1][9..], *b"\x10\xac\x02\x3a\x02\x08\x01");
        let value = [b"\x0a\x0atrain/loss\x15".as_slice(), &2.5f32.to_le_bytes()].concat();
        let summary = [b"\x0a\x11".as_slice(), &value].concat();
        assert_eq!(messages[2][9..], [b"\x10\xde\x02\x2a\x13".as_slice(), &summary].concat());
    }
}

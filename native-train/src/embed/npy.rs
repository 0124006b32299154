//! NumPy's `.npy` format, versions 1 to 3: a matrix of floats in C order.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{Read, Seek, SeekFrom};

use crate::tensors::Element;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read: that of a matrix has some hundred bytes.
const MOST_HEADER: usize = 1 << 20;

/// What the header of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) rows: usize,
    pub(super) dimensions: usize,
    pub(super) element: Element,
}

/// Reads a file's header; what follows are the rows, of f16, f32 or f64, little or big endian.
///
/// # Errors
/// A sentence without the file's name that says what is wrong, also where the rows are more or
/// fewer bytes than the header says.
pub(super) fn read_header(file: &mut (impl Read + Seek)) -> Result<Header, String> {
    let mut take = |count: usize| {
        let mut bytes = vec![0; count];
        file.read_exact(&mut bytes).map(|()| bytes)
    };
    let cut = |_| "is cut off in its header".to_owned();
    if take(MAGIC.len()).ok().as_deref() != Some(MAGIC) {
        return Err("is not an .npy file (wrong first bytes)".into());
    }
    let major = take(2).map_err(cut)?[0];
    let length = match major {
        1 => take(2).map_err(cut)?,
        2 | 3 => take(4).map_err(cut)?,
        other => return Err(format!("is .npy version {other}; versions 1 to 3 can be read")),
    };
    let length = length.iter().rev().fold(0usize, |sum, &byte| sum << 8 | usize::from(byte));
    if length > MOST_HEADER {
        return Err(format!("says that its header has {length} bytes, which no array needs"));
    }
    let header = String::from_utf8(take(length).map_err(cut)?)
        .map_err(|_| "has a header that is not text".to_owned())?;
    if value_of(&header, "fortran_order") != Some("False") {
        return Err("is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let (rows, dimensions) = shape(&header)?;
    let kind = value_of(&header, "descr").unwrap_or_default().trim_matches(['\'', '"']);
    let element = match kind {
        "<f2" => Element::F16,
        ">f2" => Element::F16Big,
        "<f4" => Element::F32,
        ">f4" => Element::F32Big,
        "<f8" => Element::F64,
        ">f8" => Element::F64Big,
        other => {
            return Err(format!("holds \"{other}\"; save it as float32, float64 or float16"));
        }
    };
    let failed = |e: std::io::Error| e.to_string();
    let start = file.stream_position().map_err(failed)?;
    let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?.saturating_sub(start);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let wanted = rows.checked_mul(dimensions).and_then(|n| n.checked_mul(element.bytes()));
    if wanted.map(|wanted| wanted as u64) != Some(bytes) {
        return Err(format!(
            "has {bytes} bytes of data; its shape ({rows}, {dimensions}) does not fit"
        ));
    }
    Ok(Header { rows, dimensions, element })
}

/// The text of a value in the header, a Python dictionary with three fixed keys.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let after = ['\'', '"'].iter().find_map(|quote| {
        let quoted = format!("{quote}{key}{quote}");
        header.find(&quoted).map(|at| &header[at + quoted.len()..])
    })?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    let end = match value.as_bytes().first()? {
        b'(' => value.find(')')? + 1,
        _ => value.find([',', '}'])?,
    };
    Some(value[..end].trim())
}

fn shape(header: &str) -> Result<(usize, usize), String> {
    let shape = value_of(header, "shape").ok_or("has no shape in its header")?;
    let axes: Option<Vec<usize>> = shape
        .trim_matches(['(', ')'])
        .split(',')
        .map(str::trim)
        .filter(|axis| !axis.is_empty())
        .map(|axis| axis.parse().ok())
        .collect();
    match axes.as_deref() {
        Some(&[rows, dimensions]) if dimensions > 0 => Ok((rows, dimensions)),
        _ => Err(format!("has shape {shape}; it must have two axes, items and dimensions")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use half::f16;

    use super::*;

    /// A file as numpy writes it: the header padded to a multiple of 64.
    fn file(version: u8, descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        let prefix = if version == 1 { 10 } else { 12 };
        while (prefix + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    const VALUES: [f32; 6] = [1.0, -0.5, 0.25, 2.0, 0.0, 65504.0];

    #[test]
    fn every_float_kind_and_version_reads_the_same() {
        let kinds: [(&str, Vec<u8>); 6] = [
            ("<f2", VALUES.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
            (">f2", VALUES.iter().flat_map(|&x| f16::from_f32(x).to_be_bytes()).collect()),
            ("<f4", VALUES.iter().flat_map(|x| x.to_le_bytes()).collect()),
            (">f4", VALUES.iter().flat_map(|x| x.to_be_bytes()).collect()),
            ("<f8", VALUES.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect()),
            (">f8", VALUES.iter().flat_map(|&x| f64::from(x).to_be_bytes()).collect()),
        ];
        for version in 1..=3 {
            for (descr, data) in &kinds {
                let mut file = Cursor::new(file(version, descr, "False", "(2, 3)", data));
                let Header { rows, dimensions, element } = read_header(&mut file).unwrap();
                assert_eq!((rows, dimensions), (2, 3), "{descr} {version}");
                let mut rest = Vec::new();
                file.read_to_end(&mut rest).unwrap();
                assert_eq!(element.floats(&rest), VALUES, "{descr} {version}");
            }
        }
    }

    #[test]
    fn wrong_files_are_refused_with_a_reason() {
        let data = [0; 24];
        for (bytes, reason) in [
            (b"PK\x03\x04".to_vec(), "not an .npy file"),
            (MAGIC.to_vec(), "cut off"),
            (file(1, "<f4", "False", "(2, 3)", &data)[..40].to_vec(), "cut off"),
            (file(4, "<f4", "False", "(2, 3)", &data), "version 4"),
            (file(1, "<f4", "True", "(2, 3)", &data), "Fortran order"),
            (file(1, "<i4", "False", "(2, 3)", &data), "<i4"),
            (file(1, "|O", "False", "(2, 3)", &data), "|O"),
            (file(1, "<f4", "False", "(6,)", &data), "two axes"),
            (file(1, "<f4", "False", "(1, 2, 3)", &data), "two axes"),
            (file(1, "<f4", "False", "(6, 0)", &data), "two axes"),
            (file(1, "<f4", "False", "(2, 4)", &data), "does not fit"),
            (file(1, "<f4", "False", "(2, 2)", &data), "does not fit"),
            (file(1, "<f4", "False", "(9223372036854775807, 8)", &data), "does not fit"),
        ] {
            let error = read_header(&mut Cursor::new(bytes)).unwrap_err();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
    }
}

//! NumPy's `.npy` format, versions 1 to 3: a matrix of floats in C order.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use half::f16;

use super::Vectors;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads a matrix `[rows, dimensions]` of f16, f32 or f64, little or big endian.
///
/// # Errors
/// A sentence without the file's name that says what is wrong.
pub(super) fn parse(bytes: &[u8]) -> Result<(usize, Vectors), String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("is not an .npy file (wrong first bytes)")?;
    let cut = "is cut off in its header";
    let (&[major, _minor], rest) = rest.split_first_chunk().ok_or(cut)?;
    let (header_length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk().ok_or(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk().ok_or(cut)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => return Err(format!("is .npy version {other}; versions 1 to 3 can be read")),
    };
    let (header, data) = rest.split_at_checked(header_length).ok_or(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "has a header that is not text")?;
    if value_of(header, "fortran_order") != Some("False") {
        return Err("is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let (rows, dimensions) = shape(header)?;
    let kind = value_of(header, "descr").unwrap_or_default().trim_matches(['\'', '"']);
    let count = rows.checked_mul(dimensions);
    let values = match kind {
        "<f2" => floats(data, count, |b| f16::from_le_bytes(b).to_f32()),
        ">f2" => floats(data, count, |b| f16::from_be_bytes(b).to_f32()),
        "<f4" => floats(data, count, f32::from_le_bytes),
        ">f4" => floats(data, count, f32::from_be_bytes),
        "<f8" => floats(data, count, |b| f64::from_le_bytes(b) as f32),
        ">f8" => floats(data, count, |b| f64::from_be_bytes(b) as f32),
        other => return Err(format!("holds \"{other}\"; save it as float32, float64 or float16")),
    };
    let data = values.ok_or_else(|| {
        let bytes = data.len();
        format!(
            "has {bytes} bytes of data; its shape ({rows}, {dimensions}) of {kind} does not fit"
        )
    })?;
    Ok((rows, Vectors { dimensions, data }))
}

/// `count` values of `N` bytes each; `None` where the data are more or fewer.
fn floats<const N: usize>(
    data: &[u8],
    count: Option<usize>,
    read: impl Fn([u8; N]) -> f32,
) -> Option<Vec<f32>> {
    let (values, rest) = data.as_chunks();
    (rest.is_empty() && count == Some(values.len()))
        .then(|| values.iter().map(|value| read(*value)).collect())
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
                let (rows, vectors) =
                    parse(&file(version, descr, "False", "(2, 3)", data)).unwrap();
                assert_eq!((rows, vectors.dimensions), (2, 3), "{descr} {version}");
                assert_eq!(vectors.data, VALUES, "{descr} {version}");
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
            let error = parse(&bytes).unwrap_err();
            assert!(error.contains(reason), "\"{error}\" does not say \"{reason}\"");
        }
    }
}

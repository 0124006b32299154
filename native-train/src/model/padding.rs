//! Rows of different lengths in one tensor.

use tch::{Device, Kind, Tensor};

/// Rows of tokens, padded on the left, as two `[rows, longest]` tensors on the device: the tokens
/// (`i64`), and which of them are not padding (`bool`).
pub fn pad_left(rows: &[impl AsRef<[u32]>], pad: u32, device: Device) -> (Tensor, Tensor) {
    let longest = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let mut tokens = vec![i64::from(pad); rows.len() * longest];
    let mut keep = vec![false; rows.len() * longest];
    for (index, row) in rows.iter().map(AsRef::as_ref).enumerate() {
        let start = (index + 1) * longest - row.len();
        for (offset, &token) in row.iter().enumerate() {
            tokens[start + offset] = i64::from(token);
            keep[start + offset] = true;
        }
    }
    let shape = [rows.len() as i64, longest as i64];
    let on_device = |t: Tensor| t.view(shape).to_device(device);
    (
        on_device(Tensor::from_slice(&tokens)),
        on_device(Tensor::from_slice(&keep).to_kind(Kind::Bool)),
    )
}

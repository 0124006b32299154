// Floats as integers that order as they do. No float's key is 0; what is no number comes last, so
// that it is among the survivors and the host sees it.

// Negative floats order backwards as integers; flipping makes all order forwards.
fn order_key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let key = select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
    return select(key, 0xffffffffu, (bits & 0x7fffffffu) > 0x7f800000u);
}

fn ordered_value(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u));
}

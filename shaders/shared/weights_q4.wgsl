// Weight matrix in 4-bit integers, eight columns a word, and a scale per 32 columns of a row. Rows
// are padded with zeros to a multiple of four, columns to whole groups.

@group(0) @binding(5) var<storage, read> weights: array<u32>; // [outputs, groups, 4]
@group(0) @binding(6) var<storage, read> scales: array<u32>; // [outputs, groups], two halves a word

// First quad of a row: a group is eight quads.
fn row_start(row: u32, inputs4: u32) -> u32 {
    return row * ((inputs4 + 7u) & ~7u);
}

// Four neighbouring columns of a row, scaled; `index` counts quads.
fn weight(index: u32) -> vec4<f32> {
    let word = bitcast<i32>(weights[index / 2u] >> (16u * (index % 2u)));
    // Each half byte is moved to the top and back, which extends its sign.
    let values = vec4<i32>(word << 28u, word << 24u, word << 20u, word << 16u) >> vec4<u32>(28u);
    let pair = unpack2x16float(scales[index / 16u]);
    return vec4<f32>(values) * select(pair.x, pair.y, (index & 8u) != 0u);
}

// Scales of four neighbouring rows: they are in the weights already.
fn row_scales(quad: u32) -> vec4<f32> {
    return vec4<f32>(1.0);
}

fn row_scale(row: u32) -> f32 {
    return 1.0;
}

// Weight matrix in int8, four columns a word, and a scale per row. Rows and columns are padded
// with zeros to multiples of four.

@group(0) @binding(5) var<storage, read> weights: array<u32>; // [outputs, inputs4]
@group(0) @binding(6) var<storage, read> scales: array<vec4<f32>>; // [outputs / 4]

// First quad of a row.
fn row_start(row: u32, inputs4: u32) -> u32 {
    return row * inputs4;
}

// Four neighbouring columns of a row, not scaled; `index` counts quads.
fn weight(index: u32) -> vec4<f32> {
    let word = bitcast<i32>(weights[index]);
    // Each byte is moved to the top and back, which extends its sign.
    return vec4<f32>(vec4<i32>(word << 24u, word << 16u, word << 8u, word) >> vec4<u32>(24u));
}

// Scales of four neighbouring rows.
fn row_scales(quad: u32) -> vec4<f32> {
    return scales[quad];
}

fn row_scale(row: u32) -> f32 {
    return scales[row / 4u][row % 4u];
}

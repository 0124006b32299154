// Weight matrix as it is. Rows and columns are padded with zeros to multiples of four.

@group(0) @binding(5) var<storage, read> weights: array<vec4<f32>>; // [outputs, inputs4]

// First quad of a row.
fn row_start(row: u32, inputs4: u32) -> u32 {
    return row * inputs4;
}

// Four neighbouring columns of a row; `index` counts quads.
fn weight(index: u32) -> vec4<f32> {
    return weights[index];
}

// Scales of four neighbouring rows.
fn row_scales(quad: u32) -> vec4<f32> {
    return vec4<f32>(1.0);
}

fn row_scale(row: u32) -> f32 {
    return 1.0;
}

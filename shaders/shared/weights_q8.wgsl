// Weight matrix in int8, four inputs a word, one row a word, so that neighbouring outputs lie side
// by side, and a scale per output. Outputs and inputs are padded with zeros to multiples of four.

@group(0) @binding(5) var<storage, read> weights: array<u32>; // [inputs / 4, outputs]
@group(0) @binding(6) var<storage, read> scales: array<f32>; // [outputs]

// Four neighbouring inputs of an output, not scaled; `quad` counts them.
fn weight(quad: u32, output: u32, outputs: u32) -> vec4<f32> {
    let word = bitcast<i32>(weights[quad * outputs + output]);
    // Each byte is moved to the top and back, which extends its sign.
    return vec4<f32>(vec4<i32>(word << 24u, word << 16u, word << 8u, word) >> vec4<u32>(24u));
}

fn output_scale(output: u32) -> f32 {
    return scales[output];
}

// Weight matrix in 4-bit integers, eight inputs a word, one row a word, so that neighbouring
// outputs lie side by side, and a scale per 32 inputs of an output. Outputs are padded with zeros
// to a multiple of four, inputs to whole groups.

@group(0) @binding(5) var<storage, read> weights: array<u32>; // [inputs / 8, outputs]
@group(0) @binding(6) var<storage, read> scales: array<u32>; // [groups / 2, outputs], two halves a word

// Four neighbouring inputs of an output, scaled; `quad` counts them.
fn weight(quad: u32, output: u32, outputs: u32) -> vec4<f32> {
    let word = bitcast<i32>(weights[quad / 2u * outputs + output] >> (16u * (quad % 2u)));
    // Each half byte is moved to the top and back, which extends its sign.
    let values = vec4<i32>(word << 28u, word << 24u, word << 20u, word << 16u) >> vec4<u32>(28u);
    let pair = unpack2x16float(scales[quad / 16u * outputs + output]);
    return vec4<f32>(values) * select(pair.x, pair.y, (quad & 8u) != 0u);
}

// The scales are in the weights already.
fn output_scale(output: u32) -> f32 {
    return 1.0;
}

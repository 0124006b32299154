// Weight matrix as it is, one row an input column, so that neighbouring outputs lie side by side.
// Outputs and inputs are padded with zeros to multiples of four.

@group(0) @binding(5) var<storage, read> weights: array<f32>; // [inputs, outputs]

// Four neighbouring inputs of an output; `quad` counts them.
fn weight(quad: u32, output: u32, outputs: u32) -> vec4<f32> {
    let at = quad * 4u * outputs + output;
    return vec4<f32>(
        weights[at],
        weights[at + outputs],
        weights[at + 2u * outputs],
        weights[at + 3u * outputs],
    );
}

fn output_scale(output: u32) -> f32 {
    return 1.0;
}

// Weight matrix in halves, two inputs a word, one row a word, so that neighbouring outputs lie side
// by side: unpacking needs no feature of the device. Outputs and inputs are padded with zeros to
// multiples of four.

@group(0) @binding(5) var<storage, read> weights: array<u32>; // [inputs / 2, outputs]

// Four neighbouring inputs of an output; `quad` counts them.
fn weight(quad: u32, output: u32, outputs: u32) -> vec4<f32> {
    let at = quad * 2u * outputs + output;
    return vec4<f32>(unpack2x16float(weights[at]), unpack2x16float(weights[at + outputs]));
}

fn output_scale(output: u32) -> f32 {
    return 1.0;
}

// Weight matrix as it is, a row an input. Outputs and inputs are padded with zeros to multiples of
// four.

@group(0) @binding(5) var<storage, read> weights: array<vec4f>; // [inputs, outputs / 4]

// A quad of inputs, columns, of a quad of outputs; `outputs4` counts those of the matrix.
fn weights_of(inputs: u32, outputs: u32, outputs4: u32) -> mat4x4f {
    let at = 4u * inputs * outputs4 + outputs;
    return mat4x4f(
        weights[at],
        weights[at + outputs4],
        weights[at + 2u * outputs4],
        weights[at + 3u * outputs4],
    );
}

fn scales_of(outputs: u32) -> vec4f {
    return vec4f(1.0);
}

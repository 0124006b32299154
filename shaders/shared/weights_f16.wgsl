// Weight matrix in halves, two inputs a word, a row a word: unpacking needs no feature of the
// device. Outputs and inputs are padded with zeros to multiples of four.

@group(0) @binding(5) var<storage, read> weights: array<vec4u>; // [inputs / 2, outputs / 4]

// A quad of inputs, columns, of a quad of outputs; `outputs4` counts those of the matrix.
fn weights_of(inputs: u32, outputs: u32, outputs4: u32) -> mat4x4f {
    let at = 2u * inputs * outputs4 + outputs;
    let low = weights[at];
    let high = weights[at + outputs4];
    return transpose(mat4x4f(
        vec4f(unpack2x16float(low.x), unpack2x16float(high.x)),
        vec4f(unpack2x16float(low.y), unpack2x16float(high.y)),
        vec4f(unpack2x16float(low.z), unpack2x16float(high.z)),
        vec4f(unpack2x16float(low.w), unpack2x16float(high.w)),
    ));
}

fn scales_of(outputs: u32) -> vec4f {
    return vec4f(1.0);
}

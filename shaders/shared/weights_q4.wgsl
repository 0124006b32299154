// Weight matrix in 4-bit integers, eight inputs a word, a row a word, and a scale per 32 inputs of
// an output. Outputs are padded with zeros to a multiple of four, inputs to whole groups.

@group(0) @binding(5) var<storage, read> weights: array<vec4<u32>>; // [inputs / 8, outputs / 4]
@group(0) @binding(6) var<storage, read> scales: array<vec4<u32>>; // [groups / 2, outputs / 4], two halves a word

// A quad of inputs, columns, of a quad of outputs, scaled; `outputs4` counts those of the matrix.
fn weights_of(inputs: u32, outputs: u32, outputs4: u32) -> mat4x4<f32> {
    let half = vec4<u32>(16u * (inputs % 2u));
    let words = bitcast<vec4<i32>>(weights[inputs / 2u * outputs4 + outputs] >> half);
    let group = vec4<u32>(2u * (inputs & 8u));
    let scale = scales[inputs / 16u * outputs4 + outputs] >> group;
    let factor = vec4<f32>(
        unpack2x16float(scale.x).x,
        unpack2x16float(scale.y).x,
        unpack2x16float(scale.z).x,
        unpack2x16float(scale.w).x,
    );
    // Each half byte is moved to the top and back, which extends its sign.
    let top = vec4<u32>(28u);
    return mat4x4<f32>(
        factor * vec4<f32>((words << top) >> top),
        factor * vec4<f32>((words << vec4<u32>(24u)) >> top),
        factor * vec4<f32>((words << vec4<u32>(20u)) >> top),
        factor * vec4<f32>((words << vec4<u32>(16u)) >> top),
    );
}

// The scales are in the weights already.
fn scales_of(outputs: u32) -> vec4<f32> {
    return vec4<f32>(1.0);
}

// Weight matrix in int8, four inputs a word, a row a word, and a scale per output. Outputs and
// inputs are padded with zeros to multiples of four.

@group(0) @binding(5) var<storage, read> weights: array<vec4<u32>>; // [inputs / 4, outputs / 4]
@group(0) @binding(6) var<storage, read> scales: array<vec4<f32>>; // [outputs / 4]

// A quad of inputs, columns, of a quad of outputs, not scaled; `outputs4` counts those of the
// matrix.
fn weights_of(inputs: u32, outputs: u32, outputs4: u32) -> mat4x4<f32> {
    let words = bitcast<vec4<i32>>(weights[inputs * outputs4 + outputs]);
    // Each byte is moved to the top and back, which extends its sign.
    let top = vec4<u32>(24u);
    return mat4x4<f32>(
        vec4<f32>((words << top) >> top),
        vec4<f32>((words << vec4<u32>(16u)) >> top),
        vec4<f32>((words << vec4<u32>(8u)) >> top),
        vec4<f32>(words >> top),
    );
}

fn scales_of(outputs: u32) -> vec4<f32> {
    return scales[outputs];
}

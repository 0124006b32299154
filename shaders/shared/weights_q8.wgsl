// Weight matrix in int8, four inputs a word, a row a word, and a scale per output. Outputs and
// inputs are padded with zeros to multiples of four.

@group(0) @binding(5) var<storage, read> weights: array<vec4u>; // [inputs / 4, outputs / 4]
@group(0) @binding(6) var<storage, read> scales: array<vec4f>; // [outputs / 4]

// A quad of inputs, columns, of a quad of outputs, not scaled; `outputs4` counts those of the
// matrix.
fn weights_of(inputs: u32, outputs: u32, outputs4: u32) -> mat4x4f {
    // With its sign turned around, a byte is its value plus 128; bytes are brought down as floats,
    // which is exact, since software shifts vectors component by component.
    let words = weights[inputs * outputs4 + outputs];
    let turned = bitcast<vec4i>(words ^ vec4u(0x00808080u));
    return mat4x4f(
        vec4f(turned & vec4i(0xff)) - 128.0,
        vec4f(turned & vec4i(0xff00)) * 0x1p-8 - 128.0,
        vec4f(turned & vec4i(0xff0000)) * 0x1p-16 - 128.0,
        vec4f(turned & vec4i(-0x1000000)) * 0x1p-24,
    );
}

fn scales_of(outputs: u32) -> vec4f {
    return scales[outputs];
}

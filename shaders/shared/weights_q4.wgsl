// Weight matrix in 4-bit integers, eight inputs a word, a row a word, and a scale per 32 inputs of
// an output. Outputs are padded with zeros to a multiple of four, inputs to whole groups.

@group(0) @binding(5) var<storage, read> weights: array<vec4u>; // [inputs / 8, outputs / 4]
@group(0) @binding(6) var<storage, read> scales: array<vec4u>; // [groups / 2, outputs / 4], two halves a word

// A quad of inputs, columns, of a quad of outputs, scaled; `outputs4` counts those of the matrix.
fn weights_of(inputs: u32, outputs: u32, outputs4: u32) -> mat4x4f {
    let words = weights[inputs / 2u * outputs4 + outputs];
    let scale = scales[inputs / 16u * outputs4 + outputs];
    // Of two halves, the high one belongs to odd groups.
    let odd = (inputs & 8u) != 0u;
    let x = unpack2x16float(scale.x);
    let y = unpack2x16float(scale.y);
    let z = unpack2x16float(scale.z);
    let w = unpack2x16float(scale.w);
    let factor = select(vec4f(x.x, y.x, z.x, w.x), vec4f(x.y, y.y, z.y, w.y), odd);
    // The four half bytes go to the top of the word, by a product, since software shifts vectors
    // component by component. With its sign turned around, a half byte is its value plus 8.
    let top = words * select(0x10000u, 1u, inputs % 2u == 1u);
    let turned = bitcast<vec4i>(top ^ vec4u(0x08880000u));
    return mat4x4f(
        factor * (vec4f(turned & vec4i(0xf0000)) * 0x1p-16 - 8.0),
        factor * (vec4f(turned & vec4i(0xf00000)) * 0x1p-20 - 8.0),
        factor * (vec4f(turned & vec4i(0xf000000)) * 0x1p-24 - 8.0),
        factor * (vec4f(turned & vec4i(-0x10000000)) * 0x1p-28),
    );
}

// The scales are in the weights already.
fn scales_of(outputs: u32) -> vec4f {
    return vec4f(1.0);
}

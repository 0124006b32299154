// Products of 4-bit weights by packed dot products. The weights are those of `weights_q4`.
#import packed

@group(0) @binding(5) var<storage, read> weights: array<vec4u>; // [inputs / 8, outputs / 4]
@group(0) @binding(6) var<storage, read> scales: array<vec4u>; // [groups / 2, outputs / 4], two halves a word

const GROUP: u32 = 8u; // quads that share a scale; a chunk has whole groups

// Products of four staged rows from `first` on, columns, with a quad of outputs, scaled;
// `outputs4` counts those of the matrix, `begin` and `end` are quads of inputs.
fn products_of(first: u32, begin: u32, end: u32, outputs: u32, outputs4: u32) -> mat4x4f {
    var all = mat4x4f();
    for (var group = begin; group < end; group += GROUP) {
        var sums = Sums();
        for (var k = group; k < min(group + GROUP, end); k++) {
            let half = vec4u(16u * (k % 2u));
            let words = bytes_of(weights[k / 2u * outputs4 + outputs] >> half);
            add_products(&sums, (k - begin) * ROWS + first, words);
        }
        let scale = scales[group / 16u * outputs4 + outputs] >> vec4u(2u * (group & 8u));
        let factor = vec4f(
            unpack2x16float(scale.x).x,
            unpack2x16float(scale.y).x,
            unpack2x16float(scale.z).x,
            unpack2x16float(scale.w).x,
        );
        let products = in_floats(sums);
        all += mat4x4f(
            products[0] * factor,
            products[1] * factor,
            products[2] * factor,
            products[3] * factor,
        );
    }
    return all;
}

// The lower four half bytes of each word, as signed bytes.
fn bytes_of(words: vec4u) -> vec4u {
    let low = words & vec4u(0xffffu);
    let apart = (low | (low << vec4u(8u))) & vec4u(0x00ff00ffu);
    let halves = (apart | (apart << vec4u(4u))) & vec4u(0x0f0f0f0fu);
    // Sets the upper half of each byte whose bit 3 is set: 8 * 30 is 0xf0.
    return halves | ((halves & vec4u(0x08080808u)) * 30u);
}

// The scales are in the products already.
fn scales_of(outputs: u32) -> vec4f {
    return vec4f(1.0);
}

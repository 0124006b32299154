// Products of int8 weights by packed dot products. The weights are those of `weights_q8`.
#import packed

@group(0) @binding(5) var<storage, read> weights: array<vec4u>; // [inputs / 4, outputs / 4]
@group(0) @binding(6) var<storage, read> scales: array<vec4f>; // [outputs / 4]

// Products of four staged rows from `first` on, columns, with a quad of outputs, not scaled;
// `outputs4` counts those of the matrix, `begin` and `end` are quads of inputs. A chunk's sums are
// far below 2^31.
fn products_of(first: u32, begin: u32, end: u32, outputs: u32, outputs4: u32) -> mat4x4f {
    var sums = Sums();
    for (var k = begin; k < end; k++) {
        add_products(&sums, (k - begin) * ROWS + first, weights[k * outputs4 + outputs]);
    }
    return in_floats(sums);
}

fn scales_of(outputs: u32) -> vec4f {
    return scales[outputs];
}

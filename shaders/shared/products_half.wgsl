// Products in halves: four products of a quad in halves, the sum of quads in floats. Inputs are at
// most 256 in magnitude and weights 32, so that four products fit into a half, and small ones are
// not lost below its least numbers.
#import weights

alias Quad = vec4<f16>;
const LARGEST: f32 = 256.0;

fn rounded(values: vec4<f32>) -> Quad {
    return vec4<f16>(values);
}

// Products of four staged rows from `first` on, columns, with a quad of outputs; `outputs4` counts
// those of the matrix, `begin` and `end` are quads of inputs.
fn products_of(first: u32, begin: u32, end: u32, outputs: u32, outputs4: u32) -> mat4x4<f32> {
    var sums = mat4x4<f32>();
    for (var k = begin; k < end; k++) {
        let exact = weights_of(k, outputs, outputs4);
        let w = mat4x4<f16>(
            vec4<f16>(exact[0]),
            vec4<f16>(exact[1]),
            vec4<f16>(exact[2]),
            vec4<f16>(exact[3]),
        );
        let at = (k - begin) * ROWS + first;
        sums += mat4x4<f32>(
            vec4<f32>(w * staged[at]),
            vec4<f32>(w * staged[at + 1u]),
            vec4<f32>(w * staged[at + 2u]),
            vec4<f32>(w * staged[at + 3u]),
        );
    }
    return sums;
}

// A linear layer (`shared/linear_layer.wgsl`) in floats.
//
// One invocation computes a tile of 4 rows by 4 outputs in registers, or by 16 where that pays
// (`tile`). The weights of a quad of inputs and a quad of outputs are one load or a few; an
// invocation's quads lie LANES apart, so that neighbours read neighbouring weights, and all of a
// row read the same inputs. The norm's factor belongs to a whole row, so it is gathered on the way
// and applied at the end.
#import weights
#import tile
#import linear_layer

@compute @workgroup_size(LANES, TILES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * 4u;
    let outputs4 = p.outputs / 4u;
    let first = id.x / LANES * (OUTPUTS / 4u) * LANES + id.x % LANES;
    if row >= p.rows || first >= outputs4 {
        return;
    }
    // Rows past the end repeat the last one, outputs past the end read anything; neither is stored.
    let at = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(p.rows - 1u)) * p.inputs4;
    // A column a row of x, a component an output.
    var sums0 = mat4x4<f32>();
    var sums1 = mat4x4<f32>();
    var sums2 = mat4x4<f32>();
    var sums3 = mat4x4<f32>();
    var squares = vec4<f32>(0.0);
    for (var k = 0u; k < p.inputs4; k++) {
        var rows = mat4x4<f32>(x[at.x + k], x[at.y + k], x[at.z + k], x[at.w + k]);
        if p.normalise == 1u {
            squares += vec4<f32>(
                dot(rows[0], rows[0]),
                dot(rows[1], rows[1]),
                dot(rows[2], rows[2]),
                dot(rows[3], rows[3]),
            );
            let n = norm[k];
            rows = mat4x4<f32>(rows[0] * n, rows[1] * n, rows[2] * n, rows[3] * n);
        }
        sums0 += weights_of(k, first, outputs4) * rows;
        if OUTPUTS == 16u {
            sums1 += weights_of(k, first + LANES, outputs4) * rows;
            sums2 += weights_of(k, first + 2u * LANES, outputs4) * rows;
            sums3 += weights_of(k, first + 3u * LANES, outputs4) * rows;
        }
    }
    var factors = vec4<f32>(p.scale);
    if p.normalise == 1u {
        factors *= inverseSqrt(squares / f32(p.inputs) + p.epsilon);
    }
    store_four(row, first, sums0, factors);
    if OUTPUTS == 16u {
        store_four(row, first + LANES, sums1, factors);
        store_four(row, first + 2u * LANES, sums2, factors);
        store_four(row, first + 3u * LANES, sums3, factors);
    }
}

// A linear layer (`shared/linear_layer.wgsl`) in floats.
//
// One invocation computes a tile of 4 rows by 4 outputs in registers. The weights of a quad of
// inputs and a quad of outputs are one load or a few; neighbours read neighbouring weights, and all
// of a row read the same inputs. The norm's factor belongs to a whole row, so it is gathered on the
// way and applied at the end.
#import weights
#import linear_layer

const LANES: u32 = 16u; // neighbouring invocations that share rows
const TILES: u32 = 4u; // tiles of rows in a workgroup

@compute @workgroup_size(LANES, TILES)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * 4u;
    let outputs4 = p.outputs / 4u;
    if row >= p.rows || id.x >= outputs4 {
        return;
    }
    // Rows past the end repeat the last one and are not stored.
    let at = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(p.rows - 1u)) * p.inputs4;
    // A column a row of x, a component an output.
    var sums = mat4x4<f32>();
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
        sums += weights_of(k, id.x, outputs4) * rows;
    }
    var factors = vec4<f32>(p.scale);
    if p.normalise == 1u {
        factors *= inverseSqrt(squares / f32(p.inputs) + p.epsilon);
    }
    store_four(row + vec4<u32>(0u, 1u, 2u, 3u), id.x, sums, factors);
}

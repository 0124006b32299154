// Linear layer with what stands around it in T5:
//   y = [y +] [relu] (scale * ([RMS norm of] x) W^T)
// One invocation computes a tile of 4 rows by 4 outputs in registers. The norm's factor belongs to
// a whole row, so it is gathered on the way and applied at the end.
#import weights

struct Params {
    rows: u32,
    inputs4: u32, // quads of the input width
    outputs4: u32, // quads of the output width
    y_offset4: u32, // first quad of y that is written
    inputs: u32, // the input width without padding
    normalise: u32, // 1: RMS norm of x before
    relu: u32, // 1: ReLU after
    residual: u32, // 1: add to y
    epsilon: f32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // [rows, inputs4]
@group(0) @binding(2) var<storage, read> norm: array<vec4<f32>>; // [inputs4]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>; // [rows, outputs4] at y_offset4

@compute @workgroup_size(16, 4)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.y * 4u;
    if id.x >= p.outputs4 || row >= p.rows {
        return;
    }
    // Rows past the end repeat the last one and are not stored.
    let at = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(p.rows - 1u)) * p.inputs4;
    let begin = row_start(id.x * 4u, p.inputs4);
    let next = row_start(1u, p.inputs4);
    var sum0 = vec4<f32>(0.0);
    var sum1 = vec4<f32>(0.0);
    var sum2 = vec4<f32>(0.0);
    var sum3 = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var k = 0u; k < p.inputs4; k++) {
        var x0 = x[at.x + k];
        var x1 = x[at.y + k];
        var x2 = x[at.z + k];
        var x3 = x[at.w + k];
        if p.normalise == 1u {
            squares += vec4<f32>(dot(x0, x0), dot(x1, x1), dot(x2, x2), dot(x3, x3));
            let n = norm[k];
            x0 *= n;
            x1 *= n;
            x2 *= n;
            x3 *= n;
        }
        let w0 = weight(begin + k);
        let w1 = weight(begin + next + k);
        let w2 = weight(begin + 2u * next + k);
        let w3 = weight(begin + 3u * next + k);
        sum0 += vec4<f32>(dot(x0, w0), dot(x0, w1), dot(x0, w2), dot(x0, w3));
        sum1 += vec4<f32>(dot(x1, w0), dot(x1, w1), dot(x1, w2), dot(x1, w3));
        sum2 += vec4<f32>(dot(x2, w0), dot(x2, w1), dot(x2, w2), dot(x2, w3));
        sum3 += vec4<f32>(dot(x3, w0), dot(x3, w1), dot(x3, w2), dot(x3, w3));
    }
    var factors = vec4<f32>(p.scale);
    if p.normalise == 1u {
        factors *= inverseSqrt(squares / f32(p.inputs) + p.epsilon);
    }
    let scales = row_scales(id.x);
    store(row, id.x, sum0 * scales * factors.x);
    store(row + 1u, id.x, sum1 * scales * factors.y);
    store(row + 2u, id.x, sum2 * scales * factors.z);
    store(row + 3u, id.x, sum3 * scales * factors.w);
}

fn store(row: u32, column: u32, sum: vec4<f32>) {
    if row >= p.rows {
        return;
    }
    let at = p.y_offset4 + row * p.outputs4 + column;
    var value = sum;
    if p.relu == 1u {
        value = max(value, vec4<f32>(0.0));
    }
    if p.residual == 1u {
        value += y[at];
    }
    y[at] = value;
}

// A linear layer (`shared/linear_layer.wgsl`) whose inputs a workgroup rounds once, into its memory,
// to the numbers that its device multiplies fastest (`products`).
//
// Rows are rounded relative to their largest magnitude in a chunk of the inputs, so that nothing
// overflows and small rows stay precise. Then each invocation multiplies 4 rows by 4 outputs.
#import linear_layer
#import products

const LANES: u32 = 16u; // neighbouring invocations that share rows
const TILES: u32 = 4u; // tiles of rows in a workgroup
const ROWS: u32 = 4u * TILES;
const CHUNK: u32 = 64u; // quads of inputs in the workgroup's memory
const STAGERS: u32 = LANES * TILES / ROWS; // invocations that round a row

var<workgroup> staged: array<Quad, CHUNK * ROWS>; // [CHUNK, ROWS]
var<workgroup> reduced: array<f32, LANES * TILES>; // of each invocation
var<workgroup> units: array<f32, ROWS>; // what 1 of a rounded row stands for

@compute @workgroup_size(LANES, TILES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_id) local: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let outputs4 = p.outputs / 4u;
    let first = group.y * ROWS;
    // This invocation rounds a part of this row; rows past the end repeat the last one.
    let own = lane / STAGERS;
    let x_at = min(first + own, p.rows - 1u) * p.inputs4;
    // It multiplies these rows and outputs; outputs past the end repeat the last and are not stored.
    let row = first + 4u * local.y;
    let output = group.x * LANES + local.x;
    let read = min(output, outputs4 - 1u);

    // A column a row of x, a component an output.
    var sums = mat4x4f();
    var squares = 0.0;
    for (var begin = 0u; begin < p.inputs4; begin += CHUNK) {
        let end = min(begin + CHUNK, p.inputs4);
        // Magnitudes in the order of their bits, in which a value that is no number is above all
        // and is not lost.
        var largest = 0u;
        for (var k = begin + lane % STAGERS; k < end; k += STAGERS) {
            let raw = x[x_at + k];
            squares += dot(raw, raw);
            let size = bitcast<vec4u>(input_of(raw, k)) & vec4u(0x7fffffffu);
            largest = max(largest, max(max(size.x, size.y), max(size.z, size.w)));
        }
        reduced[lane] = bitcast<f32>(largest);
        workgroupBarrier();
        for (var i = 0u; i < STAGERS; i++) {
            largest = max(largest, bitcast<u32>(reduced[own * STAGERS + i]));
        }
        let most = bitcast<f32>(largest);
        // A row that is all but zero has no inverse.
        let factor = select(0.0, LARGEST / most, most > 1e-30);
        for (var k = begin + lane % STAGERS; k < end; k += STAGERS) {
            staged[(k - begin) * ROWS + own] = rounded(factor * input_of(x[x_at + k], k));
        }
        if lane % STAGERS == 0u {
            units[own] = most / LARGEST;
        }
        workgroupBarrier();
        if row < p.rows {
            let at = 4u * local.y;
            let products = products_of(at, begin, end, read, outputs4);
            sums += mat4x4f(
                products[0] * units[at],
                products[1] * units[at + 1u],
                products[2] * units[at + 2u],
                products[3] * units[at + 3u],
            );
        }
        // No barrier: before `staged` and `units` are written again, all meet at the first one.
    }
    reduced[lane] = squares;
    workgroupBarrier();
    if row >= p.rows || output >= outputs4 {
        return;
    }
    let at = 4u * local.y;
    let all = vec4f(squares_of(at), squares_of(at + 1u), squares_of(at + 2u), squares_of(at + 3u));
    store_four(row + vec4u(0u, 1u, 2u, 3u), output, &sums, factors_of(all));
}

// A quad of a row as it is multiplied, but for the norm's factor.
fn input_of(raw: vec4f, k: u32) -> vec4f {
    if p.normalise == 1u {
        return raw * norm[k];
    }
    return raw;
}

fn squares_of(row: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < STAGERS; i++) {
        sum += reduced[row * STAGERS + i];
    }
    return sum;
}

// A linear layer (`shared/linear_layer.wgsl`) in floats, for matrices of so few outputs that a GPU
// would be idle for the most part: SLICES invocations share a tile, each with a part of the inputs.
// There are SLICES times as many invocations, each with a fraction of the iterations.
#import linear_tile

const LANES: u32 = 16u; // neighbouring invocations that share rows
const SLICES: u32 = 4u; // invocations that share a tile

var<workgroup> parts: array<Tile, LANES * SLICES>;

@compute @workgroup_size(LANES, SLICES)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(local_invocation_id) local: vec3u,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.y * 4u;
    let outputs = group.x * LANES + local.x;
    // Outputs past the end repeat the last ones and are not stored.
    let read = min(outputs, p.outputs / 4u - 1u);
    parts[lane] = tile_of(row, read, local.y, SLICES);
    workgroupBarrier();
    if local.y > 0u {
        return;
    }
    var tile = parts[lane];
    for (var slice = 1u; slice < SLICES; slice++) {
        let other = parts[lane + slice * LANES];
        tile.sums += other.sums;
        tile.squares += other.squares;
    }
    store_tile(row, outputs, &tile);
}

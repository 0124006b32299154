// A linear layer (`shared/linear_layer.wgsl`) in floats: an invocation computes a tile.
#import linear_tile

const LANES: u32 = 16u; // neighbouring invocations that share rows
const TILES: u32 = 4u; // tiles of rows in a workgroup

@compute @workgroup_size(LANES, TILES)
fn main(@builtin(global_invocation_id) id: vec3u) {
    let row = id.y * 4u;
    if row >= p.rows || id.x >= p.outputs / 4u {
        return;
    }
    var tile = tile_of(row, id.x, 0u, 1u);
    store_tile(row, id.x, &tile);
}

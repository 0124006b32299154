// A tile of a linear layer in floats: 4 rows by 4 outputs in registers. The weights of a quad of
// inputs and a quad of outputs are one load or a few; neighbours read neighbouring weights, and all
// of a row read the same inputs. The norm's factor belongs to a whole row, so it is gathered on the
// way and applied at the end.
#import weights
#import linear_layer

struct Tile {
    sums: mat4x4f, // a column a row of x, a component an output
    squares: vec4f, // of the rows
}

// What every `step`th quad of inputs from `begin` on gives for four rows from `row` on and a quad of
// outputs. Rows past the end repeat the last one.
fn tile_of(row: u32, outputs: u32, begin: u32, step: u32) -> Tile {
    let outputs4 = p.outputs / 4u;
    let at = min(vec4u(row, row + 1u, row + 2u, row + 3u), vec4u(p.rows - 1u)) * p.inputs4;
    var tile = Tile();
    for (var k = begin; k < p.inputs4; k += step) {
        var rows = mat4x4f(x[at.x + k], x[at.y + k], x[at.z + k], x[at.w + k]);
        if p.normalise == 1u {
            tile.squares += vec4f(
                dot(rows[0], rows[0]),
                dot(rows[1], rows[1]),
                dot(rows[2], rows[2]),
                dot(rows[3], rows[3]),
            );
            let n = norm[k];
            rows = mat4x4f(rows[0] * n, rows[1] * n, rows[2] * n, rows[3] * n);
        }
        tile.sums += weights_of(k, outputs, outputs4) * rows;
    }
    return tile;
}

// Stores what all quads of inputs have given; rows past the end are not.
fn store_tile(row: u32, outputs: u32, tile: ptr<function, Tile>) {
    var sums = (*tile).sums;
    store_four(row + vec4u(0u, 1u, 2u, 3u), outputs, &sums, factors_of((*tile).squares));
}

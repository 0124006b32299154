// Rows of a quad of invocations. Each invocation loads one of four rows and takes the others from
// its neighbours: row j in its order is the one that invocation `own ^ j` has loaded. Nothing is
// assumed about subgroups but that they have whole quads.

// Which of the four rows come in which place.
fn rows_of_quad(own: u32) -> vec4u {
    return vec4u(own) ^ vec4u(0u, 1u, 2u, 3u);
}

fn of_quad(row: vec4f) -> mat4x4f {
    return mat4x4f(row, quadSwapX(row), quadSwapY(row), quadSwapDiagonal(row));
}

// What the four invocations know of the same four rows, each in its own order, put into that of
// this one.
fn of_same_rows(known: vec4f) -> mat4x4f {
    return mat4x4f(
        known,
        quadSwapX(known).yxwz,
        quadSwapY(known).zwxy,
        quadSwapDiagonal(known).wzyx,
    );
}

// Rows of a quad of invocations. Each invocation loads one of four rows and takes the others from
// its neighbours: row j in its order is the one that invocation `own ^ j` has loaded. Nothing is
// assumed about subgroups but that they have whole quads.

// Which of the four rows come in which place.
fn rows_of_quad(own: u32) -> vec4<u32> {
    return vec4<u32>(own) ^ vec4<u32>(0u, 1u, 2u, 3u);
}

fn of_quad(row: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(row, quadSwapX(row), quadSwapY(row), quadSwapDiagonal(row));
}

// What the four invocations know of the same four rows, each in its own order, put into that of
// this one.
fn of_same_rows(known: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        known,
        quadSwapX(known).yxwz,
        quadSwapY(known).zwxy,
        quadSwapDiagonal(known).wzyx,
    );
}

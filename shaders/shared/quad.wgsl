// Rows of a quad of invocations. Each invocation loads one of four rows and takes the others from
// its neighbours: row j in its order is the one that invocation `own ^ j` has loaded. Nothing is
// assumed about subgroups but that they have whole quads.

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

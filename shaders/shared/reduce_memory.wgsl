// Reductions over a workgroup of LANES, through its memory.

var<workgroup> reduced: array<f32, LANES>;

fn largest_of_all(lane: u32, own: f32) -> f32 {
    reduced[lane] = own;
    workgroupBarrier();
    var largest = own;
    for (var i = 0u; i < LANES; i++) {
        largest = max(largest, reduced[i]);
    }
    workgroupBarrier();
    return largest;
}

fn sum_of_all(lane: u32, own: f32) -> f32 {
    reduced[lane] = own;
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < LANES; i++) {
        sum += reduced[i];
    }
    workgroupBarrier();
    return sum;
}

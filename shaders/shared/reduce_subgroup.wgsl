// Reductions over a workgroup of LANES, first inside of subgroups of any size. Which invocations
// form a subgroup is the device's affair: each counts itself.

var<workgroup> reduced: array<f32, LANES>;

fn largest_of_all(lane: u32, own: f32) -> f32 {
    // An earlier loop may have left the subgroup divergent.
    workgroupBarrier();
    let index = subgroupExclusiveAdd(1u);
    let width = subgroupAdd(1u);
    reduced[lane] = subgroupMax(own);
    workgroupBarrier();
    var largest = own;
    for (var i = index; i < LANES; i += width) {
        largest = max(largest, reduced[i]);
    }
    workgroupBarrier();
    return subgroupMax(largest);
}

fn sum_of_all(lane: u32, own: f32) -> f32 {
    workgroupBarrier();
    let index = subgroupExclusiveAdd(1u);
    let width = subgroupAdd(1u);
    // A subgroup's sum counts once.
    reduced[lane] = select(0.0, subgroupAdd(own), index == 0u);
    workgroupBarrier();
    var sum = 0.0;
    for (var i = index; i < LANES; i += width) {
        sum += reduced[i];
    }
    workgroupBarrier();
    return subgroupAdd(sum);
}

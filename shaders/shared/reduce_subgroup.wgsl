// Reductions over a workgroup of LANES, first inside of subgroups of any size. Which invocations
// form a subgroup is the device's affair: each counts itself.

var<workgroup> reduced: array<Reduced, LANES>;

fn largest_of_all(lane: u32, own: Reduced) -> Reduced {
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

fn sum_of_all(lane: u32, own: Reduced) -> Reduced {
    workgroupBarrier();
    let index = subgroupExclusiveAdd(1u);
    let width = subgroupAdd(1u);
    // A subgroup's sum counts once.
    reduced[lane] = select(Reduced(), subgroupAdd(own), index == 0u);
    workgroupBarrier();
    var sum = Reduced();
    for (var i = index; i < LANES; i += width) {
        sum += reduced[i];
    }
    workgroupBarrier();
    return subgroupAdd(sum);
}

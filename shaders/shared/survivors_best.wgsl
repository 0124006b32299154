// Survivors of a search for the best: a candidate's key is its score.

fn write_scores(beam: u32, parent: u32, parent_row: u32, code: u32, key: u32) {
    next[beam] = bitcast<u32>(ordered_value(key));
}

// What the kernels of a level's candidates are told.

struct Params {
    level: u32,
    words: u32, // words of one item's codes
    codes: u32, // codes of the level
    offset: u32, // token of code 0
    stride: u32, // values between rows of logits
    users: u32,
    rows: u32, // rows of a user
}

@group(0) @binding(0) var<uniform> p: Params;

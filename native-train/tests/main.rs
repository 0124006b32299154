//! The command and the library from outside. One program holds all of these tests, since each one
//! would be linked with libtorch.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod assign;
mod bad_input;
mod encoders;
mod hub;
mod interrupt;
mod line;
mod new_texts;
mod pipeline;
mod prepare_and_embed;
mod raw_data;
mod report;
mod sasrec;
mod studies;
mod tigret;
mod training_faults;

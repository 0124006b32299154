//! Reading files, and writing them whole.

mod folder;
mod lock;
mod read;
mod write;

pub(crate) use folder::{
    check_writable, make_parent, remove_folder_if_there, remove_if_there, takes_files,
};
pub(crate) use lock::try_lock;
pub(crate) use read::{NOT_UTF8, check_is_kept, open_file, read_bytes, read_json, read_text};
pub(crate) use write::{
    DEVICE, FOLDER, Together, UNFINISHED, open_unfinished, pretty, unfinished, write_atomically,
    write_json, write_line,
};

//! The research format: `sequences.txt` (a user and their items a line) and `items.jsonl`.

use std::collections::HashMap;
use std::path::Path;

use super::items::{ItemColumns, KeyedItem, read_items};
use super::{Dataset, Item, Sequence, lines};
use crate::error::{Result, TrainError};

/// Reads both files. Sequences name items by the field `id`, whatever `columns.id` is.
///
/// Items that no sequence has are dropped; the others keep their order.
///
/// # Errors
/// [`TrainError::Line`] for a line that cannot be read, a user on two lines, or an item that the
/// items file does not have.
pub fn read(sequences: &Path, items: &Path, columns: &ItemColumns) -> Result<Dataset> {
    let keyed = read_items(items, columns, Some("id"))?;
    let index: HashMap<&str, u32> =
        keyed.iter().zip(0..).map(|(item, at)| (item.key.as_str(), at)).collect();
    let mut read = Vec::new();
    let mut lines_of_users = HashMap::new();
    lines::for_each_line(sequences, "check the path", |number, line| {
        let wrong = |reason: String| TrainError::line(sequences, number, reason);
        let mut words = line.split_ascii_whitespace();
        let Some(user) = words.next() else { return Ok(()) };
        if let Some(first) = lines_of_users.insert(user.to_owned(), number) {
            return Err(wrong(format!("user \"{user}\" stands already on line {first}")));
        }
        let items = words
            .map(|id| {
                index
                    .get(id)
                    .copied()
                    .ok_or_else(|| wrong(format!("item \"{id}\" is not in {}", items.display())))
            })
            .collect::<Result<Vec<u32>>>()?;
        if items.is_empty() {
            return Err(wrong(format!("user \"{user}\" has no items")));
        }
        read.push(Sequence { user: user.to_owned(), items });
        Ok(())
    })?;
    let items: Vec<Item> = keyed.into_iter().map(|KeyedItem { item, .. }| item).collect();
    Ok(Dataset { items, sequences: read })
}

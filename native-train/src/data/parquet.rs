//! Tables in Parquet, row by row: as much of the format as logs and items are written in.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::ProgressBar;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type};
use serde_json::{Map, Value};

use super::moment::Moment;
use crate::error::{Result, TrainError};
use crate::files::open_file;
use crate::panics::caught;

/// Rows between two reports of progress.
const REPORT: u64 = 1 << 14;

/// A value of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// Whatever JSON can hold; a missing value is [`Value::Null`].
    Value(Value),
    /// A date, or a date and time.
    Time(Moment),
}

impl Cell {
    /// The cell as a field of an item: times as RFC 3339 text.
    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Value(value) => value,
            Self::Time(moment) => moment.to_rfc3339().map_or(Value::Null, Value::String),
        }
    }
}

/// An open file.
pub(super) struct Table {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    bytes: u64,
}

impl Table {
    /// Opens a file; the progress learns its size.
    ///
    /// # Errors
    /// [`TrainError::File`] where it is missing, not Parquet, or names a column twice.
    pub(super) fn open(path: &Path, progress: &ProgressBar) -> Result<Self> {
        let file = open_file(path, "check the path")?;
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        let reader = guarded(|| SerializedFileReader::new(file))
            .map_err(|e| TrainError::file(path, format!("is not a Parquet file: {e}")))?;
        let table = Self { path: path.to_owned(), reader, bytes };
        let names = table.columns();
        if let Some((_, name)) =
            names.iter().enumerate().find(|(at, name)| names[..*at].contains(name))
        {
            return Err(TrainError::file(path, format!("column \"{name}\" stands twice")));
        }
        progress.inc_length(bytes);
        Ok(table)
    }

    fn schema(&self) -> &SchemaDescriptor {
        self.reader.metadata().file_metadata().schema_descr()
    }

    /// The names of the columns, in their order.
    pub(super) fn columns(&self) -> Vec<&str> {
        self.schema().root_schema().get_fields().iter().map(|field| field.name()).collect()
    }

    /// Calls `each` with the 1-based number of every row and its cells in the order of `names`,
    /// which are columns of the table; one may be named twice.
    ///
    /// # Errors
    /// [`TrainError::File`] for a column of a type that is not read, [`TrainError::Line`] for a
    /// damaged row, and whatever `each` returns.
    pub(super) fn for_each_row(
        &self,
        names: &[&str],
        progress: &ProgressBar,
        mut each: impl FnMut(usize, Vec<Cell>) -> Result<()>,
    ) -> Result<()> {
        let root = self.schema().root_schema();
        let wanted = |name: &str| names.iter().position(|n| *n == name);
        let fields: Vec<Arc<Type>> = root
            .get_fields()
            .iter()
            .filter(|field| wanted(field.name()).is_some())
            .map(Arc::clone)
            .collect();
        // The reader keeps the file's order.
        let places: Vec<usize> = fields.iter().filter_map(|field| wanted(field.name())).collect();
        let again: Vec<(usize, usize)> = names
            .iter()
            .enumerate()
            .filter_map(|(place, name)| Some((place, wanted(name)?)))
            .filter(|(place, first)| place != first)
            .collect();
        let mut units = vec![Units::default(); names.len()];
        for column in self.schema().columns() {
            let Some(at) = column.path().parts().first().and_then(|name| wanted(name)) else {
                continue;
            };
            let unit = unit(column).ok_or_else(|| {
                let reason = format!(
                    "column \"{}\" is of a type that is not read ({}); write it as text or a \
                     number",
                    column.path().string(),
                    kind(column),
                );
                TrainError::file(&self.path, reason)
            })?;
            units[at].add(column, unit);
        }
        let damaged = |row: usize, e: ParquetError| {
            TrainError::line(&self.path, row, format!("the row cannot be read: {e}"))
        };
        let projection = Type::group_type_builder(root.name()).with_fields(fields).build();
        let projection = projection.map_err(|e| damaged(1, e))?;
        let mut rows = guarded(|| RowIter::from_file(Some(projection), &self.reader))
            .map_err(|e| damaged(1, e))?;
        let total = u64::try_from(self.reader.metadata().file_metadata().num_rows()).unwrap_or(0);
        let mut reported = 0;
        for row in 1.. {
            let Some(found) = guarded(|| rows.next().transpose()).map_err(|e| damaged(row, e))?
            else {
                break;
            };
            let mut cells = vec![Cell::Value(Value::Null); names.len()];
            for ((_, field), &place) in found.into_columns().into_iter().zip(&places) {
                cells[place] = cell(field, units[place]);
            }
            for &(place, first) in &again {
                cells[place] = cells[first].clone();
            }
            each(row, cells)?;
            let done = row as u64;
            if done.is_multiple_of(REPORT) && total > 0 {
                let read = (self.bytes as u128 * u128::from(done.min(total)) / u128::from(total))
                    .try_into()
                    .unwrap_or(self.bytes);
                progress.inc(read - reported);
                reported = read;
            }
        }
        progress.inc(self.bytes - reported);
        Ok(())
    }
}

/// What the reader does not tell of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Nothing: the value says all.
    Told,
    /// Whole numbers are nanoseconds since 1970.
    Nanoseconds,
    /// Bytes are a UUID.
    Uuid,
}

/// How the values of all leaves of a column are to be understood: the reader does not tell of which
/// leaf a value is.
#[derive(Debug, Clone, Copy, Default)]
struct Units {
    leaves: usize,
    /// Leaves of whole numbers that the reader hands over as they are, and those of nanoseconds.
    longs: usize,
    nanoseconds: usize,
    uuids: usize,
}

impl Units {
    fn add(&mut self, column: &ColumnDescriptor, unit: Unit) {
        use ConvertedType::{INT_64, NONE};
        let is_long = column.physical_type() == Physical::INT64
            && matches!(column.converted_type(), NONE | INT_64);
        self.leaves += 1;
        self.longs += usize::from(is_long);
        self.nanoseconds += usize::from(unit == Unit::Nanoseconds);
        self.uuids += usize::from(unit == Unit::Uuid);
    }

    fn are_nanoseconds(self) -> bool {
        self.nanoseconds > 0 && self.nanoseconds == self.longs
    }

    /// Whether these bytes are a UUID; beside other leaves, text is none.
    fn is_uuid(self, bytes: &[u8]) -> bool {
        self.uuids > 0
            && bytes.len() == 16
            && (self.uuids == self.leaves || std::str::from_utf8(bytes).is_err())
    }
}

/// A column's type, for messages.
fn kind(column: &ColumnDescriptor) -> String {
    match column.logical_type_ref() {
        Some(LogicalType::Time(_)) => "a time of day".to_owned(),
        _ => format!("{} as {}", column.physical_type(), column.converted_type()),
    }
}

/// How a column's values are to be understood; nothing for a type on which the reader gives up.
fn unit(column: &ColumnDescriptor) -> Option<Unit> {
    use ConvertedType as C;
    let unit = match column.logical_type_ref() {
        Some(LogicalType::Timestamp(time)) if time.unit == TimeUnit::NANOS => Unit::Nanoseconds,
        Some(LogicalType::Uuid) => Unit::Uuid,
        // In nanoseconds it has no converted type that would tell.
        Some(LogicalType::Time(_)) => return None,
        _ => Unit::Told,
    };
    let read = match column.physical_type() {
        Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE | Physical::INT96 => true,
        Physical::INT32 => matches!(
            column.converted_type(),
            C::NONE
                | C::INT_8
                | C::INT_16
                | C::INT_32
                | C::UINT_8
                | C::UINT_16
                | C::UINT_32
                | C::DATE
                | C::DECIMAL
        ),
        Physical::INT64 => matches!(
            column.converted_type(),
            C::NONE
                | C::INT_64
                | C::UINT_64
                | C::TIMESTAMP_MILLIS
                | C::TIMESTAMP_MICROS
                | C::DECIMAL
        ),
        Physical::BYTE_ARRAY => {
            matches!(column.converted_type(), C::NONE | C::UTF8 | C::ENUM | C::JSON | C::DECIMAL)
        }
        Physical::FIXED_LEN_BYTE_ARRAY => matches!(column.converted_type(), C::NONE | C::DECIMAL),
    };
    read.then_some(unit)
}

fn cell(field: Field, units: Units) -> Cell {
    match moment(&field, units) {
        Some(moment) => Cell::Time(moment),
        None => Cell::Value(value(field, units)),
    }
}

/// The moment that a field stands for, if it is one.
fn moment(field: &Field, units: Units) -> Option<Moment> {
    match *field {
        Field::Long(count) if units.are_nanoseconds() => {
            Some(Moment::since_epoch(count, 1_000_000_000))
        }
        Field::TimestampMillis(count) => Some(Moment::since_epoch(count, 1_000)),
        Field::TimestampMicros(count) => Some(Moment::since_epoch(count, 1_000_000)),
        Field::Date(days) => Some(Moment::whole(i64::from(days) * 86_400)),
        _ => None,
    }
}

/// A field as JSON; bytes that are not text and numbers that are not finite are missing.
fn value(field: Field, units: Units) -> Value {
    if let Some(moment) = moment(&field, units) {
        return Cell::Time(moment).into_value();
    }
    match field {
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => f64::from(value).into(),
        Field::Float(value) => {
            // As it is written in base ten: 4.2 is not 4.199999809.
            value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
        }
        Field::Double(value) => value.into(),
        Field::Decimal(decimal) => {
            // Two's complement, highest byte first, of at most 16 bytes for 38 digits.
            let bytes = decimal.data();
            if bytes.len() > 16 {
                return Value::Null;
            }
            let sign = if bytes.first().is_some_and(|&byte| byte > 127) { -1 } else { 0 };
            let whole = bytes.iter().fold(sign, |sum: i128, &byte| sum << 8 | i128::from(byte));
            match (decimal.scale(), i64::try_from(whole)) {
                (0, Ok(whole)) => whole.into(),
                // More digits than a number of JSON has for certain: an id is these digits.
                (0, Err(_)) => whole.to_string().into(),
                (scale, _) => (whole as f64 / 10f64.powi(scale)).into(),
            }
        }
        Field::Str(text) => text.into(),
        Field::Bytes(bytes) if units.is_uuid(bytes.data()) => uuid(bytes.data()).into(),
        Field::Bytes(bytes) => {
            String::from_utf8(bytes.data().to_vec()).map_or(Value::Null, Value::from)
        }
        Field::Group(row) => {
            let fields = row.into_columns().into_iter();
            fields.map(|(name, field)| (name, value(field, units))).collect::<Map<_, _>>().into()
        }
        Field::ListInternal(list) => {
            list.elements().iter().map(|field| value(field.clone(), units)).collect()
        }
        Field::MapInternal(map) => {
            let entries = map.entries().iter().map(|(key, field)| {
                (super::values::flat(&value(key.clone(), units)), value(field.clone(), units))
            });
            entries.collect::<Map<_, _>>().into()
        }
        // Moments are told above; a time of day is none.
        Field::Date(_) | Field::TimestampMillis(_) | Field::TimestampMicros(_) => Value::Null,
        Field::Null | Field::TimeMillis(_) | Field::TimeMicros(_) => Value::Null,
    }
}

/// The bytes of a UUID as people write it.
fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        let dash = if [4, 6, 8, 10].contains(&at) { "-" } else { "" };
        text += &format!("{dash}{byte:02x}");
    }
    text
}

/// Runs a step of the reader, which gives up with a panic where a damaged file breaks what it
/// takes for granted.
fn guarded<T>(step: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    caught(|_| true, step)
        .unwrap_or_else(|_| Err(ParquetError::General("the file is damaged".to_owned())))
}

"""Writes the golden tables of `native-train/tests/raw_data.rs` with `pyarrow`.

The same nine interactions in the types, packings and layouts in which logs are met, and a table of
items.

    pip install pyarrow
    python tests/golden/make_parquet_golden.py
"""

import datetime
import decimal
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent / "parquet"
REVIEWS = [
    ("ann", "kettle", 5.0, 30), ("bob", "lamp", 4.0, 10), ("ann", "lamp", 2.0, 20),
    ("ann", "stool", 5.0, 10), ("bob", "kettle", 5.0, 20), ("bob", "kettle", 5.0, 20),
    ("bob", "stool", 3.0, 30), ("ann", "mug", 4.0, 40), ("bob", "mug", 1.0, 40),
]
USERS, ITEMS, STARS, TIMES = (list(column) for column in zip(*REVIEWS))
NUMBERS = {"kettle": 0, "lamp": 1, "stool": 2, "mug": 3}
USER_IDS = {"ann": "00112233-4455-6677-8899-aabbccddeeff",
            "bob": "f0000000-0000-4000-8000-00000000000f"}
DAY = datetime.date(2020, 1, 1)


def moments(unit, zone=None):
    """The times as days after the first of 2020, in a unit."""
    days = [datetime.datetime(2020, 1, 1) + datetime.timedelta(days=time) for time in TIMES]
    return pa.array(days, pa.timestamp(unit)).cast(pa.timestamp(unit, zone))


def write(name, columns, **options):
    pq.write_table(pa.table(columns), HERE / f"{name}.parquet", **options)


def log(times, users=USERS, items=ITEMS, stars=STARS):
    # Not in the order in which they are asked for, and with a column that is not.
    return {"timestamp": times, "stars": stars, "note": ["…"] * len(times),
            "item": items, "user": users}


def main():
    HERE.mkdir(exist_ok=True)
    write("whole", log(pa.array(TIMES, pa.int64())), compression="snappy", row_group_size=4)
    write("unsigned", log(pa.array(TIMES, pa.uint32()), stars=pa.array(STARS, pa.float32())),
          compression="gzip", data_page_version="2.0")
    write("fraction", log(pa.array(TIMES, pa.float64()), stars=pa.array([int(s) for s in STARS])),
          compression="brotli", use_dictionary=False)
    write("millis", log(moments("ms", "UTC")), compression="zstd")
    write("micros", log(moments("us")), compression="lz4")
    write("nanos", log(moments("ns")), compression="none", use_dictionary=False)
    write("int96", log(moments("ns")), use_deprecated_int96_timestamps=True)
    write("text", log([f"2020-03-{time:02}T00:00:00Z" if time < 31 else "2020-04-09T00:00:00Z"
                       for time in TIMES]))
    write("dates", log([DAY + datetime.timedelta(days=time) for time in TIMES]))
    write("decimal", log(pa.array(TIMES, pa.int32()),
                         stars=pa.array([decimal.Decimal(str(s)) for s in STARS],
                                        pa.decimal128(4, 2))))
    write("numbered", log(pa.array(TIMES, pa.int64()), items=[NUMBERS[i] for i in ITEMS],
                          users=[{"ann": 7, "bob": -1}[u] for u in USERS]))
    # Ids of more digits than a float keeps.
    write("long-ids", log(
        pa.array(TIMES, pa.int64()),
        users=pa.array([{"ann": decimal.Decimal(76561198000000001), "bob": decimal.Decimal(
            76561198000000002)}[u] for u in USERS], pa.decimal128(18, 0)),
        items=pa.array([decimal.Decimal(10**37 + NUMBERS[i]) for i in ITEMS],
                       pa.decimal128(38, 0))))
    write("float-ids", log(pa.array(TIMES, pa.int64()),
                           users=pa.array([7.6561198e16 for _ in USERS], pa.float64())))
    write("uuids", log(pa.array(TIMES, pa.int64()),
                       users=pa.array([uuid.UUID(USER_IDS[u]).bytes for u in USERS], pa.uuid())))
    write("categories", log(pa.array(TIMES, pa.int64()),
                            users=pa.array(USERS).dictionary_encode(),
                            items=pa.array(ITEMS, pa.large_string())))
    # Of a struct's values the reader does not tell of which leaf they are.
    skus = pa.array([uuid.UUID(id).bytes for id in USER_IDS.values()] * 2, pa.uuid())
    counts, names = pa.array([5, 6, 7, 8], pa.int64()), pa.array(["a", "b", "c", "d"])
    write("structs", {
        "id": ["kettle", "lamp", "stool", "mug"],
        "last": pa.StructArray.from_arrays([counts, names, skus], ["stock", "name", "sku"]),
        "first": pa.StructArray.from_arrays([skus, counts], ["sku", "stock"]),
    })
    # What has to be refused.
    write("null-cell", log(pa.array(TIMES, pa.int64()), users=USERS[:6] + [None] + USERS[7:]))
    write("time-of-day", log(pa.array([datetime.time(time // 2) for time in TIMES])))
    write("time-of-day-nanos", log(pa.array(TIMES, pa.int64()).cast(pa.time64("ns"))))
    write("list", log(pa.array(TIMES, pa.int64()), items=[[item] for item in ITEMS]))
    write("no-rows", log(pa.array([], pa.int64()), users=pa.array([], pa.string()),
                         items=pa.array([], pa.string()), stars=pa.array([], pa.float64())))
    write("items", {
        "id": ["kettle", "lamp", "stool", "mug"],
        "title": ["Nan's kettle", None, "Stool", "Mug"],
        "price": pa.array([12.5, None, 4.2, 3.0], pa.float32()),
        "categories": [["Home", "Kitchen"], ["Home"], [], None],
        "maker": [{"name": "Café", "since": 1900}, None, None, {"name": "Eve", "since": None}],
        "listed": [DAY, None, DAY, DAY],
    })


if __name__ == "__main__":
    main()

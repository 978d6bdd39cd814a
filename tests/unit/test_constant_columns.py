"""Columns of Parquet files that have one value in all rows, by the statistics in the files."""

from __future__ import annotations

import math
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from maskscore.export.query_engine import constant_columns, create_view_of_files

ODD = "é\n\\x41\t\0" + "long" * 500
TEXTS = pa.list_(pa.string())


def test_columns_of_one_value_are_found_and_read_the_same(tmp_path: Path) -> None:
    first = {
        "text": ["it's", "it's"],
        "odd": [ODD, ODD],
        "empty": ["", ""],
        "number": pa.array([7, 7], "int32"),
        "flag": [True, True],
        "null_float": pa.array([None, None], "float64"),
        "null_here": pa.array([None, None], "string"),
        "missing_and_null": pa.array([None, None], "string"),
        "missing": ["x", "x"],
        "some_null": ["x", None],
        "two": ["x", "y"],
        "of_files": ["x", "x"],
        "numbers": pa.array([500, 500], "int64"),
        "float": [0.5, math.nan],
        "list": pa.array([None, []], TEXTS),
        "mixed": [True, True],
    }
    second = {
        **{name: values for name, values in first.items() if not name.startswith("missing")},
        "null_here": ["x", "x"],
        "of_files": ["y", "y"],
        "numbers": pa.array([600, 1000], "int64"),  # as texts, 500 is the least value and the largest one
        "mixed": pa.array([1, 1], "int64"),
    }
    files = [str(tmp_path / f"it's [1]*?{number}.parquet") for number in range(2)]
    for rows_of_group, (file, columns) in enumerate(zip(files, (first, second), strict=True), 1):
        pq.write_table(pa.table(columns), file, row_group_size=rows_of_group)
    schema = pa.schema(
        [
            pa.field(name, pa.string() if name == "mixed" else pa.array(values).type)
            for name, values in {**second, **first}.items()
        ]
    )
    with duckdb.connect() as database:
        found = constant_columns(database, files, schema)
        assert found == {
            "text": "'it''s'::VARCHAR",
            "odd": f"'{ODD}'::VARCHAR",
            "empty": "''::VARCHAR",
            "number": "'7'::INTEGER",
            "flag": "'true'::BOOLEAN",
            "null_float": "null::DOUBLE",
            "missing_and_null": "null::VARCHAR",
        }
        create_view_of_files(database, "plain", files, schema)
        create_view_of_files(database, "replaced", files, schema, found)
        rows = [database.execute(f"select * exclude float from {name}").fetchall() for name in ("plain", "replaced")]
        types = [database.sql(f"select * from {name}").types for name in ("plain", "replaced")]
    assert rows[0] == rows[1]
    assert types[0] == types[1]
    assert len(rows[0]) == 4

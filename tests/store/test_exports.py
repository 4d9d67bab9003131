"""Tables of a result hold the result's own numbers, bit for bit."""

from __future__ import annotations

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inspector.store.exports import flat_rows, to_arrow, to_csv
from tests.store.objects import HOSTILE, result

COLUMNS = [
    "experiment", "profile", "sae", "d_sae", "r2_pooled", "r2_pooled_low", "r2_pooled_high", "r2_mean_dims",
    "r2_mean_dims_low", "r2_mean_dims_high", "layer", "hook_name", "nominal_l0", "l0", "n_train", "n_test",
]  # fmt: skip


def test_csv_reads_back_as_the_object() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(result()))))
    assert list(rows[0]) == COLUMNS
    for row, entry in zip(rows, result()["saes"], strict=True):
        for key, value in entry.items():
            if isinstance(value, float | int):
                assert float(row[key]) == value
            else:
                assert row[key] == ("" if value is None else value)
    assert (rows[0]["r2_pooled_low"], rows[0]["r2_pooled_high"]) == ("0.25", "0.35")
    assert (rows[1]["r2_pooled_low"], rows[0]["r2_mean_dims_low"]) == ("", "")
    assert rows[1]["sae"] == HOSTILE


def test_parquet_reads_back_as_the_object() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(to_arrow(result()), sink)
    table = pq.read_table(pa.BufferReader(sink.getvalue()))
    assert table.column_names == COLUMNS
    assert table.to_pylist() == flat_rows(result())
    assert json.loads(table.schema.metadata[b"dm_inspect_result"]) == result()


def test_a_result_without_saes_is_one_row_of_its_own_fields() -> None:
    (row,) = flat_rows(result(saes=[], intervals={}))
    assert row == {
        "experiment": "error-vector",
        "profile": "careful",
        "lowest_r2_mean_dims": 0.25,
        "curve": "[1.0, 2.5]",
    }
    assert to_arrow(result(saes=[], intervals={})).num_rows == 1


def test_a_result_of_pairs_has_a_row_for_each() -> None:
    pairs = [{"small": "a", "large": "b", "r2": 0.1 + 0.2}, {"small": "b", "large": HOSTILE, "r2": None}]
    of_pairs = result(saes=[], result={"pairs": pairs, "n": 3}, intervals={"a -> b": {"r2": [0.25, 0.35]}})
    rows = flat_rows(of_pairs)
    assert [row["large"] for row in rows] == ["b", HOSTILE] and "n" not in rows[0]
    assert (rows[0]["r2"], rows[0]["r2_low"], rows[0]["r2_high"]) == (0.1 + 0.2, 0.25, 0.35)
    assert (rows[1]["r2"], rows[1]["r2_low"]) == (None, None)
    for strange in ("text", [1, 2], [{"small": "a"}]):  # a file edited by hand is still shown
        (row,) = flat_rows(result(saes=[], result={"pairs": strange}, intervals={}))
        assert set(row) == {"experiment", "profile", "pairs"}


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_text_that_a_spreadsheet_would_run_is_only_a_text(first: str) -> None:
    """Names of columns too; numbers and the Parquet file stay as they are."""
    rows = result()["saes"]
    name = f"{first}HYPERLINK(1)"
    rows[0] |= {"sae": name, "r2_pooled": -0.5, name: 1.0}
    found = list(csv.DictReader(io.StringIO(to_csv(result(saes=rows)), newline="")))
    assert (found[0]["sae"], found[0]["r2_pooled"], found[0][f"'{name}"]) == (f"'{name}", "-0.5", "1.0")
    table = to_arrow(result(saes=rows))
    assert table["sae"][0].as_py() == name and name in table.column_names


def test_an_sae_that_lacks_a_score_has_an_empty_cell() -> None:
    rows = result()["saes"]
    del rows[1]["r2_mean_dims"]
    assert flat_rows(result(saes=rows))[1]["r2_mean_dims"] is None

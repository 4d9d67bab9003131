"""The list of results fits its window: the hook is cut first, then the model, and at last the hook goes."""

from __future__ import annotations

from inspector.store.results import Record
from inspector.tui.result_list import columns

RECORDS = [
    Record(id="a", experiment="scaling-with-nonlinear", created="", command="", profile="careful", null="shuffle",
           model="google/gemma-2-9b", hook_name="blocks.20.hook_resid_post"),
    Record(id="b", experiment="error-vector", created="", command="", profile="careful", model="demo", hook_name="h"),
]  # fmt: skip


def test_columns_shrink_where_names_can_spare_it() -> None:
    assert columns(RECORDS, 120) == (22, 17, 25, 21)
    assert columns(RECORDS, 90) == (22, 17, 22, 21)
    assert columns(RECORDS, 70) == (22, 9, 10, 21)
    assert columns(RECORDS, 60) == (22, 6, 0, 21)


def test_titles_have_room_too() -> None:
    assert columns(RECORDS[1:], 120) == (12, 5, 4, 7)

"""The tables of plans in docs/gpu.md and docs/cluster.md are what `dm-inspect plan` says today."""

from __future__ import annotations

from tests.test_suites_table import load_script


def test_the_table_of_plans_is_what_the_command_says_and_the_papers_command_runs_from_24_gb_up() -> None:
    script = load_script("make_gpu")
    for path in script.PAGES:
        assert script.made_anew(path) == path.read_text(encoding="utf-8"), "run `python docs/make_gpu.py`"
    rows = [line for line in script.table() if "--model gemma-2-9b --layer 20`" in line]
    assert len(rows) == 3
    for row in rows:
        cells = row.split(" | ")[1:]
        assert len(cells) == len(script.CARDS)
        assert not any("refused" in each for each in cells[1:])

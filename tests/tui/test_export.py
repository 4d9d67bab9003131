"""Tables as they are copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.tui.documents import table
from inspector.tui.saved_state import write_export
from tests.tui.texts import scored_text, two_widths


def test_the_whole_table() -> None:
    text = scored_text(3, has_map=False)
    text.document.tokens[1] = '\t\n"é\x1b'
    assert table(text, [1, 2], [0], two_widths().saes) == (
        "context\tposition\ttoken_id\ttoken\tsplit\tloss\tx_norm\tsae\tl0\tsae_error_norm\tlinear_error_norm\tnonlinear_error_norm\n"
        '0\t1\t101\t\\t\\n\\"\\u00e9\\u001b\ttest\t0.5\t10\tw256\t16\t10\t\t\n'
        "0\t2\t102\t t2\ttest\t\t10\tw256\t16\t15\t\t\n"
    )


def test_one_line_per_token_and_sae() -> None:
    lines = table(scored_text(4), range(4), [0, 1], two_widths().saes).splitlines()
    assert len(lines) == 1 + 4 * 2
    assert lines[2].split("\t")[7:] == ["w1k", "16", "2.5", "1.5", "2"]


def test_an_export_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    path = write_export("context-1.tsv", "a\n")
    assert path.read_text() == "a\n"
    assert [p.name for p in path.parent.iterdir()] == ["context-1.tsv"]

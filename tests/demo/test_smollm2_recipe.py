"""The text that SmolLM2's SAEs learn from: what is read of a page and of a package, and what is left out."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from inspector.demo import smollm2_recipe as recipe
from inspector.sources.python_text import read_topics, stdlib_root

PAGE = b"""<html><head><title>no</title></head><body><nav>no</nav><p>One  line,
of two.</p><script>no()</script><ul><li>a</li><li>b</li></ul></body></html>"""


def test_a_page_is_its_text_a_line_per_block() -> None:
    assert list(recipe.READERS["html"](PAGE)) == ["One line, of two.\n\na\n\nb"]
    assert list(recipe.READERS["html"](b"<p>see</p><pre>if x:\n    y</pre>")) == ["see\n\nif x:\n    y"]


def test_novels_are_read_out_of_an_r_package() -> None:
    def packed(lines: list[str]) -> bytes:
        body = b"".join(b"\0\4\0\t" + struct.pack(">i", len(line)) + line.encode() for line in lines)
        return struct.pack(">I", len(body)) + zlib.compress(body)

    novel = [f"line {number}" for number in range(2500)]
    assert list(recipe.READERS["rdb"](packed(["short"]) + packed(novel))) == ["\n".join(novel)]


def test_what_is_shown_is_not_learned_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is a text twice, nor another language, nor a link; whatever is kept is cut into pieces."""
    topic = max(read_topics(stdlib_root() / "pydoc_data/topics.py").values(), key=len)
    words = [f"w{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(6000)]
    own = " ".join(words)
    folder = tmp_path / "packages" / "maint-guide"
    folder.mkdir(parents=True)
    for name, text in {"a.html": own, "b.html": own, "c.html": topic, "d.de.html": own[::-1]}.items():
        (folder / name).write_text(f"<p>{text}</p>")
    monkeypatch.setattr(recipe, "PACKAGES", {"maint-guide": ("{0}", "html", 10**6)})
    monkeypatch.setattr(recipe, "training_documents", lambda roots: iter([]))
    paths = {"stdlib": str(stdlib_root()), "purelib": str(tmp_path / "none")}
    monkeypatch.setattr(recipe.sysconfig, "get_path", paths.__getitem__)
    monkeypatch.setattr(recipe, "_windows", lambda pieces: np.zeros((len(pieces), 4), dtype=np.int64))
    recipe.gather(tmp_path / "packages", tmp_path / "work")
    pieces = [json.loads(line)["text"] for line in (tmp_path / "work" / "text.jsonl").read_text().splitlines()]
    assert sorted(map(len, pieces)) == [len(own) - recipe.PIECE, recipe.PIECE] and set("".join(pieces)) <= set(own)
    assert json.loads((tmp_path / "work" / "text.json").read_text())["characters"] == {"maint-guide": len(own)}


def test_kept_activations_are_found_by_their_context() -> None:
    contexts = np.arange(40, dtype=np.int64).reshape(10, 4)
    kept = recipe.Kept(lambda ids: {"a": ids[..., None].float(), "b": -ids[..., None].float()}, contexts)
    asked = torch.from_numpy(contexts[[7, 2]])
    assert torch.equal(kept.at("b")(asked)["b"], -asked[..., None].float())


def test_the_parts_are_the_suite_that_the_program_opens_at() -> None:
    ids = [plan.sae_id for plans in recipe.PARTS.values() for plan in plans]
    assert len(ids) == len(set(ids)) == 12
    assert sum(sae_id.startswith("layer_12/resid/") for sae_id in ids) == 7
    numbers = sum((2 * 576 + 1) * plan.d_sae + 576 for plans in recipe.PARTS.values() for plan in plans)
    assert 2 * numbers < 70e6, "with the demo's 20 MB below the 90 that a wheel may have"

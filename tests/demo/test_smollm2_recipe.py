"""The text that SmolLM2's SAEs learn from: what is read of a page and of a package, and what is left out."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from inspector.demo import smollm2_recipe as recipe
from inspector.demo import suite
from inspector.sources.python_text import read_topics, stdlib_root
from inspector.spec import hook_name_of

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


def test_the_loss_is_that_of_the_model_with_the_values_put_in_its_place() -> None:
    """x itself changes nothing; zeros at the last layer's output give a uniform guess, and recover nothing."""
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    windows = np.random.default_rng(0).integers(4, 32, (3, 12))
    windows[:, 0] = 1
    saes = {"same": lambda x: x, "none": torch.zeros_like, "half": lambda x: x / 2}
    hooks = [hook_name_of(site, 1) for site in ("resid", "mlp", "attn")]
    named = {hook: {f"{hook} {name}": sae for name, sae in saes.items()} for hook in hooks}
    found = suite.splice_losses(model, windows, named, (1,), 1e9)
    ids = torch.from_numpy(windows)
    logits = model(ids).logits[:, 1:-1]
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 2:].flatten()).item()
    for hook in hooks:
        same, none = found[f"{hook} same"], found[f"{hook} none"]
        assert same["n"] == 3 * 10 and same["loss_original"] == pytest.approx(plain, abs=1e-5)
        assert same["loss"] == pytest.approx(plain, abs=1e-6) and none["loss"] == none["loss_zero"] != same["loss"]
    assert found[f"{hooks[0]} none"]["loss"] == pytest.approx(np.log(32), abs=1e-6)
    rows = suite.loss_table({"a": found[f"{hooks[0]} same"], "b": found[f"{hooks[0]} none"]}).splitlines()
    assert "| +0.000 | 100.0% |" in rows[2] and rows[3].endswith("| 0.0% |")

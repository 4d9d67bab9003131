"""The grid of SAEs: hooks in order, unknown L0s and sizes said, picks as --l0 makes them, what opens them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inspector.errors import TargetError
from inspector.spec import SaeRef, TargetSpec, target_of, target_words
from inspector.tui.suite_list import (
    Suites,
    first_hook,
    hooks_of,
    l0_text,
    nearest_l0,
    opened,
    read_suites,
    size_text,
    total_text,
)


def ref(name: str, d_sae: int, l0: float | None, hook: str = "blocks.2.hook_resid_post", **changes: object) -> SaeRef:
    layer = int(hook.split(".")[1]) if hook.startswith("blocks.") else None
    made = SaeRef(sae_id=name, release="r", layer=layer, hook_name=hook, d_in=8, d_sae=d_sae, nominal_l0=l0,
                  n_bytes=1_000_000, on_disk=False)  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


REFS = [
    ref("wide", 131072, 60.0), ref("b", 16384, 58.0), ref("a", 16384, 30.0), ref("unknown", 0, None),
    ref("attn", 16384, 10.0, "blocks.2.attn.hook_z"), ref("early", 16384, 10.0, "blocks.0.hook_mlp_out"),
    ref("odd", 16384, 10.0, "hook_embed"),
]  # fmt: skip


def test_hooks_are_by_layer_then_site_and_widths_by_l0() -> None:
    hooks = hooks_of(REFS)
    assert [(hook.layer, hook.site) for hook in hooks] == [(None, "hook_embed"), (0, "mlp"), (2, "resid"), (2, "attn")]
    resid = hooks[2]
    assert [(row.label, [cell.sae_id for cell in row.cells]) for row in resid.rows] == [
        ("?", ["unknown"]), ("16k", ["a", "b"]), ("131k", ["wide"]),
    ]  # fmt: skip
    assert [l0_text(cell) for cell in resid.refs] == ["?", "30", "58", "60"]


def test_the_nearest_l0_of_each_width_where_one_is_known() -> None:
    assert [each.sae_id for each in nearest_l0(hooks_of(REFS)[2], 50.0)] == ["b", "wide"]


def test_sizes_say_what_is_unknown_and_what_is_missing() -> None:
    here, there, vague = (ref("x", 1024, 8.0, on_disk=True), ref("y", 1024, 8.0, n_bytes=2_500_000_000),
                          ref("z", 0, None, n_bytes=0))  # fmt: skip
    assert [size_text(each.n_bytes) for each in (here, there, vague)] == ["1.0 MB", "2.5 GB", "?"]
    assert total_text([here]) == "1 SAE, 1.0 MB"
    assert total_text([here, there, vague]) == "3 SAEs, 2.5 GB, 2.5 GB of it to download, 1 of unknown size"


def test_what_is_opened_is_said_by_the_command() -> None:
    suites = Suites(target=TargetSpec(model="m", offline=True), hooks=hooks_of(REFS))
    chosen = suites.hooks[2].rows[1].cells
    target = opened(suites, chosen)
    assert target == TargetSpec(model="m", offline=True, hook="blocks.2.hook_resid_post", saes=("a", "b"))
    assert target_of(target_words(target)) == target


def test_the_demo_has_its_suite_at_every_site_whatever_was_asked() -> None:
    suites = read_suites(TargetSpec(layers=(3,), widths=(256,), l0=8.0))
    assert (len(suites.refs), len(suites.hooks)) == (22, 8)
    assert all(each.on_disk for each in suites.refs)
    assert suites.target == TargetSpec()


def test_published_suites_are_of_three_sites_and_need_no_network() -> None:
    suites = read_suites(TargetSpec(model="gemma-2-9b"))
    (resid,) = [hook for hook in suites.hooks if (hook.layer, hook.site) == (20, "resid")]
    assert [row.label for row in resid.rows] == ["16k", "32k", "65k", "131k", "262k", "524k", "1m"]
    assert [l0_text(each) for each in nearest_l0(resid, 60.0)] == ["58", "57", "55", "62", "50", "48", "57"]
    assert {hook.site for hook in suites.hooks if hook.layer == 20} == {"resid", "mlp", "attn"}


def test_a_model_without_saes_says_what_to_do() -> None:
    with pytest.raises(TargetError, match="No SAEs are known for model 'no-such-model'"):
        read_suites(TargetSpec(model="no-such-model"))


def test_the_cursor_begins_at_what_is_loaded_else_at_the_layer_asked_for() -> None:
    hooks = read_suites(TargetSpec(model="gemma-2-9b")).hooks
    asked = TargetSpec(model="gemma-2-9b", layers=(20,))
    assert hooks[first_hook(hooks, "", asked)].name == "blocks.20.hook_resid_post"
    assert hooks[first_hook(hooks, "blocks.9.hook_resid_post", asked)].name == "blocks.9.hook_resid_post"
    assert first_hook((), "", asked) == 0

"""Listing and choosing SAEs from names and small files alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inspector.errors import TargetError, UsageError
from inspector.sources.suites import (
    known_saes,
    l0_notes,
    layer_of,
    list_suite,
    resolve_hook,
    select,
)
from inspector.spec import SaeRef, TargetSpec

POST = "blocks.{}.hook_resid_post"


def put(folder: Path, *, d_sae: int = 64, hook: str = POST.format(1), d_in: int = 16, **cfg: object) -> Path:
    """An SAE folder whose weights are not looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"d_in": d_in, "d_sae": d_sae, "metadata": {"hook_name": hook}, **cfg}
    (folder / "cfg.json").write_text(json.dumps(config))
    (folder / "sae_weights.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Two layers, two widths, L0 20, 50 and 90; attention at layer 1."""
    root = tmp_path / "suite"
    for layer in (1, 2):
        for d_sae, name in ((32, "32"), (1024, "1k")):
            for l0 in (20, 50, 90):
                folder = root / f"layer_{layer}" / "resid" / f"width_{name}" / f"average_l0_{l0}"
                put(folder, d_sae=d_sae, hook=POST.format(layer))
    put(root / "layer_1" / "attn" / "width_32" / "l0_8", d_sae=32, d_in=24, hook="blocks.1.attn.hook_z", k=8)
    return root


def asked(suite: Path, **fields: object) -> TargetSpec:
    return TargetSpec(model="toy", suite=str(suite), **fields)  # type: ignore[arg-type]


def picked(suite: Path, **fields: object) -> list[tuple[int, float | None]]:
    return [(ref.d_sae, ref.nominal_l0) for ref in select(list_suite(suite), asked(suite, **fields))]


def test_a_reference_says_everything_about_an_sae(suite: Path) -> None:
    refs = list_suite(suite)
    assert len(refs) == 13
    assert refs[0] == SaeRef(
        sae_id="layer_1/attn/width_32/l0_8",
        release=str(suite),
        layer=1,
        hook_name="blocks.1.attn.hook_z",
        d_in=24,
        d_sae=32,
        nominal_l0=8.0,
        n_bytes=7,
        on_disk=True,
        path=str(suite / "layer_1/attn/width_32/l0_8"),
    )
    assert [ref.nominal_l0 for ref in refs[1:4]] == [20, 50, 90]


@pytest.mark.parametrize(
    ("path", "cfg", "l0"),
    [
        ("layer_20/width_16k/average_l0_58", {}, 58),
        ("layer_3/l0_16.5", {}, 16.5),
        ("layer_3/x_l0_16", {}, 16),
        ("average_l0_58/copy", {}, 58),
        ("average_l0_58", {"k": 32}, 32),
        ("plain", {"activation_fn_kwargs": {"k": 7}}, 7),
        ("plain", {}, None),
        ("hello0_5", {}, None),
    ],
)
def test_nominal_l0_is_k_or_in_the_path_and_never_zero_when_unknown(
    tmp_path: Path, path: str, cfg: dict[str, object], l0: float | None
) -> None:
    put(tmp_path / path, **cfg)  # type: ignore[arg-type]
    assert list_suite(tmp_path)[0].nominal_l0 == l0


def test_an_sae_folder_itself_is_a_suite_of_one(tmp_path: Path) -> None:
    put(tmp_path / "mine_l0_5")
    ref = list_suite(tmp_path / "mine_l0_5")[0]
    assert (ref.sae_id, ref.nominal_l0) == ("mine_l0_5", 5)


def test_old_configurations_name_their_hook_at_the_top(tmp_path: Path) -> None:
    put(tmp_path / "old", hook="", hook_name="blocks.7.hook_mlp_out")
    assert (list_suite(tmp_path)[0].layer, list_suite(tmp_path)[0].hook_name) == (7, "blocks.7.hook_mlp_out")
    assert layer_of("hook_embed") is None


def test_unfinished_folders_are_passed_over_and_empty_suites_refused(tmp_path: Path) -> None:
    (put(tmp_path / "whole")).with_name("half").mkdir()
    (tmp_path / "half" / "cfg.json").write_text("{}")
    assert [ref.sae_id for ref in list_suite(tmp_path)] == ["whole"]
    with pytest.raises(TargetError, match="holds no SAE of a known layout"):
        list_suite(tmp_path / "half")
    with pytest.raises(TargetError, match=r"There is no SAE directory '.*/wole'\. Nearest: whole\.$"):
        list_suite(tmp_path / "wole")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no JSON object"),
        ('{"d_in": 4}', "it has no 'd_sae'"),
        ('{"d_in": 4, "d_sae": 8}', "does not say which hook the SAE reads"),
    ],
)
def test_broken_configurations_are_named(tmp_path: Path, content: str, says: str) -> None:
    folder = put(tmp_path / "sae")
    (folder / "cfg.json").write_text(content)
    with pytest.raises(TargetError, match=says) as caught:
        list_suite(tmp_path)
    assert str(folder / "cfg.json") in str(caught.value)


def test_the_only_layer_of_a_site_needs_no_naming(suite: Path) -> None:
    assert resolve_hook(list_suite(suite), asked(suite, site="attn")) == ("blocks.1.attn.hook_z", 1)
    with pytest.raises(TargetError, match=r"The suite has SAEs at 2 layers. Choose one with --layer: 1, 2."):
        resolve_hook(list_suite(suite), asked(suite))
    with pytest.raises(TargetError, match=r"no SAE at site 'mlp'. It has: blocks.1.attn.hook_z,"):
        resolve_hook(list_suite(suite), asked(suite, site="mlp"))


def test_the_demo_opens_at_its_middle_layer(suite: Path) -> None:
    for layer in (3, 5):
        put(suite / f"extra_{layer}", hook=POST.format(layer))
    assert resolve_hook(list_suite(suite), TargetSpec()) == (POST.format(3), 3)


def test_layers_that_do_not_exist(suite: Path) -> None:
    refs = list_suite(suite)
    with pytest.raises(TargetError, match=r"Model 'toy' has no layer 9. Its layers are 0 to 4."):
        resolve_hook(refs, asked(suite, layers=(9,)), n_layers=5)
    with pytest.raises(TargetError, match=r"no layer -1. Layers count from 0"):
        resolve_hook(refs, asked(suite, layers=(-1,)))
    with pytest.raises(UsageError, match="3 layers were asked for at once"):
        resolve_hook(refs, asked(suite, layers=(1, 2, 3)))
    with pytest.raises(TargetError, match=r"no SAE at blocks.0.hook_resid_post. Nearest: blocks.\d.hook_resid_post"):
        select(refs, asked(suite, layers=(0,)))


def test_all_of_a_hook_sorted_by_width_then_l0(suite: Path) -> None:
    assert picked(suite, layers=(1,)) == [(32, 20), (32, 50), (32, 90), (1024, 20), (1024, 50), (1024, 90)]


def test_a_full_hook_name_wins_over_layer_and_site(suite: Path) -> None:
    assert picked(suite, hook="blocks.1.attn.hook_z", layers=(2,)) == [(32, 8)]


def test_per_width_the_nearest_nominal_l0_is_taken(suite: Path) -> None:
    assert picked(suite, layers=(1,), l0=60) == [(32, 50), (1024, 50)]
    assert picked(suite, layers=(1,), l0=70) == [(32, 50), (1024, 50)]  # a tie: the sparser one
    assert picked(suite, layers=(1,), l0=71) == [(32, 90), (1024, 90)]
    put(suite / "unknown", d_sae=32)
    put(suite / "only", d_sae=128)
    assert picked(suite, layers=(1,), l0=1) == [(32, 20), (128, None), (1024, 20)]


def test_the_specifications_picks_at_9b_layer_20(tmp_path: Path) -> None:
    """Spec section 12: nominal L0s of Gemma Scope 9B layer 20, and what L0 ~ 60 picks now."""
    available = {
        16384: (11, 20, 36, 58, 68, 138, 310, 408),
        32768: (11, 57, 344),
        65536: (11, 55, 298),
        131072: (11, 19, 34, 53, 62, 114, 221, 276),
        262144: (11, 50, 259),
        524288: (10, 48, 241),
        1048576: (11, 19, 34, 57, 101, 193),
    }
    for d_sae, l0s in available.items():
        for l0 in l0s:
            put(tmp_path / f"layer_20/width_{d_sae}/average_l0_{l0}", d_sae=d_sae, hook=POST.format(20))
    target = TargetSpec(model="gemma", suite=str(tmp_path), l0=60)
    picks = select(list_suite(tmp_path), target)
    assert [ref.nominal_l0 for ref in picks] == [58, 57, 55, 62, 50, 48, 57]
    # Flag above 20% (spec 1.3): 48 is exactly at 20% of 60, so nothing here is far.
    assert l0_notes(picks, 60) == []
    assert l0_notes(picks, 61) == ["Nearest to --l0 61 at width 524k is 48, 21% away."]
    assert l0_notes(picks, None) == []


def test_widths_are_exact_and_a_missing_one_is_named(suite: Path) -> None:
    assert picked(suite, layers=(1,), widths=(1024,), l0=20) == [(1024, 20)]
    with pytest.raises(TargetError, match=r"no SAE of width 64 at .*\. Widths there: 32 \(32\), 1k \(1,024\)\."):
        picked(suite, layers=(1,), widths=(32, 64))


def test_exact_ids_decide_the_hook_as_well(suite: Path) -> None:
    name = "layer_2/resid/width_1k/average_l0_50"
    refs = select(list_suite(suite), asked(suite, saes=(name, name)))
    assert [(ref.sae_id, ref.layer) for ref in refs] == [(name, 2)]
    with pytest.raises(
        TargetError, match=r"sae_id 'layer_2/resid/width_1k/average_l0_60' is not in .*Nearest: layer_2"
    ):
        select(list_suite(suite), asked(suite, saes=("layer_2/resid/width_1k/average_l0_60",)))
    with pytest.raises(
        TargetError, match=r"reads blocks.2.hook_resid_post, but the target is blocks.1.hook_resid_post"
    ):
        select(list_suite(suite), asked(suite, saes=(name,), layers=(1,)))
    with pytest.raises(TargetError, match="The SAEs given read different hooks"):
        select(list_suite(suite), asked(suite, saes=(name, "layer_1/attn/width_32/l0_8")))


def test_directories_after_sae_need_no_suite(tmp_path: Path, suite: Path) -> None:
    first, second = (str(put(tmp_path / folder / "sae")) for folder in ("a", "b"))
    target = TargetSpec(model="toy", saes=(first, second))
    assert [ref.sae_id for ref in select(known_saes(target), target)] == [first, second]
    several = TargetSpec(model="toy", saes=(str(suite),))
    with pytest.raises(TargetError, match=r"holds 13 SAEs below it. Name one of them"):
        known_saes(several)


def test_without_suite_or_sae_it_says_which_to_give() -> None:
    with pytest.raises(TargetError, match=r"No SAEs are known for model 'gemma'. Give --suite DIR or --sae DIR."):
        known_saes(TargetSpec(model="gemma"))
    with pytest.raises(TargetError, match="'l0_5' is not an SAE directory, and there is no suite"):
        known_saes(TargetSpec(model="gemma", saes=("l0_5",)))


def test_listing_imports_neither_torch_nor_numpy(suite: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from inspector.sources.suites import list_suite\n"
        f"assert len(list_suite(Path({str(suite)!r}))) == 13\n"
        "heavy = {'torch', 'numpy', 'transformers', 'sae_lens', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

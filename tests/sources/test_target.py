"""One door: every default decided and recorded, every wrong word answered before anything heavy is imported."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inspector.errors import DataError, InspectorError, TargetError, UsageError
from inspector.events import Event, Loading
from inspector.sources.target import Loaded, open_target, resolve
from inspector.spec import TargetSpec
from tests.toy import fit_toy_suite, write_toy_sae, write_toy_suite

TEXT = " ".join(f"word{i * i % 97}" for i in range(900))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, toy_dirs: dict[str, Path]) -> Path:
    suite = write_toy_suite(tmp_path_factory.mktemp("suites") / "suite")
    return fit_toy_suite(suite, toy_dirs["llama"], TEXT)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "text.txt"
    path.write_text(TEXT)
    return path


def spec(toy_dirs: dict[str, Path], suite: Path, text: Path, /, **fields: object) -> TargetSpec:
    given = {"model": str(toy_dirs["llama"]), "suite": str(suite), "text": str(text), "device": "cpu"} | fields
    return TargetSpec(**given)  # type: ignore[arg-type]


def opened(target: TargetSpec) -> tuple[Loaded, list[Event]]:
    events: list[Event] = []
    generator = open_target(target)
    while True:
        try:
            events.append(next(generator))
        except StopIteration as done:
            return done.value, events


def test_every_default_is_decided_and_recorded(toy_dirs: dict[str, Path], suite: Path, text: Path) -> None:
    loaded, _ = opened(spec(toy_dirs, suite, text, contexts=20))
    assert (loaded.hook_name, loaded.layer) == ("blocks.1.hook_resid_post", 1)
    assert loaded.target.layers == (1,)
    assert (loaded.target.context_length, loaded.target.positions) == (64, (8, None))
    assert [sae.ref.label for sae in loaded.saes] == ["32/2", "32/4", "64/2", "64/4"]
    assert loaded.contexts.token_ids.shape == (20, 64)
    assert loaded.plan.n_train + loaded.plan.n_test == 20 * (64 - 8 - 1)
    assert not any("training tokens were asked for" in warning for warning in loaded.warnings)
    asked, _ = opened(spec(toy_dirs, suite, text, contexts=20, train_tokens=100_000))
    assert any("training tokens were asked for" in warning for warning in asked.warnings)
    assert asked.plan.n_train == loaded.plan.n_train


def test_what_loads_is_told_at_its_start_and_at_its_end(toy_dirs: dict[str, Path], suite: Path, text: Path) -> None:
    _, events = opened(spec(toy_dirs, suite, text, widths=(32,)))
    told = [(event.what, event.seconds is not None) for event in events if isinstance(event, Loading)]
    stages = ["importing torch", "importing transformers and transformer-lens", "model", "text", "importing sae-lens"]
    stages += ["SAE 1/2", "SAE 2/2", "load gate"]
    # The gate is told at every SAE as well.
    assert list(dict.fromkeys(told)) == [(stage, ended) for stage in stages for ended in (False, True)]


def test_attention_saes_are_matched_with_flattened_heads(toy_dirs: dict[str, Path], text: Path, tmp_path: Path) -> None:
    write_toy_suite(tmp_path, site="attn", d_in=24)
    loaded, _ = opened(spec(toy_dirs, tmp_path, text, site="attn", contexts=2))
    assert loaded.hook_name == "blocks.1.attn.hook_z"
    x = loaded.model.activations(loaded.contexts.token_ids, loaded.hook_name)
    assert loaded.saes[0].reconstruct(x.flatten(0, 1)).x_hat.shape == (128, 24)


def test_an_sae_directory_alone_says_which_hook(toy_dirs: dict[str, Path], text: Path, tmp_path: Path) -> None:
    hook = "blocks.2.hook_mlp_out"
    folder = write_toy_sae(tmp_path / "sae", d_in=16, d_sae=32, k=3, hook_name=hook)
    loaded, _ = opened(spec(toy_dirs, tmp_path, text, suite=None, saes=(str(folder),), contexts=2))
    assert (loaded.hook_name, loaded.layer, loaded.target.layers) == (hook, 2, (2,))


def test_demo_text_is_the_demos_default_only(toy_dirs: dict[str, Path], suite: Path, text: Path) -> None:
    assert resolve(spec(toy_dirs, suite, text, text=None)).target.text == "hf:monology/pile-uncopyrighted"
    assert resolve(spec(toy_dirs, suite, text, text="demo")).target.text == "demo"


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"model": "/nowhere/model"}, TargetError, "There is no model directory"),
        ({"suite": "/nowhere/suite"}, TargetError, "There is no SAE directory"),
        ({"suite": None}, TargetError, "No SAEs are known for model"),
        ({"layers": (7,)}, TargetError, "has no layer 7. Its layers are 0 to 2."),
        ({"layers": (0,)}, TargetError, "The suite has no SAE at blocks.0.hook_resid_post. Nearest: blocks.1"),
        ({"layers": (0, 1)}, UsageError, "2 layers were asked for at once"),
        ({"hook": "blocks.1.hook_resid_pots"}, TargetError, "Nearest: blocks.1.hook_resid_post"),
        ({"site": "mlp"}, TargetError, "The suite has no SAE at site 'mlp'"),
        ({"widths": (33,)}, TargetError, "There is no SAE of width 33"),
        (
            {"saes": ("layer_1/resid/width_32/l0_3",)},
            TargetError,
            "Nearest: layer_1/resid/width_32/l0_4, layer_1/resid/width_32/l0_2",
        ),
        ({"l0": 0}, UsageError, "--l0 0 is not a number of active latents"),
        ({"l0": float("nan")}, UsageError, "--l0 nan is not"),
        ({"text": "/nowhere/text.txt"}, DataError, "There is no text file"),
        ({"text": "/"}, DataError, "is a directory"),
        ({"context_length": 65}, UsageError, "--context-length 65 is more than the model takes. Use 64 or less."),
        ({"contexts": 0}, UsageError, "--contexts 0"),
        ({"positions": (5, 5)}, UsageError, "--positions 5:5 holds no position"),
        ({"positions": (-1, None)}, UsageError, "--positions -1: holds no position"),
        ({"positions": (63, None)}, UsageError, "begins after the last token of a context of 64"),
        ({"train_tokens": 0}, UsageError, "--train-tokens 0"),
        ({"seed": -1}, UsageError, "--seed -1 is negative"),
        ({"model": "x" * 5000}, TargetError, "neither a directory nor in the Hugging Face cache"),
        ({"model": ""}, TargetError, "--model is empty"),
        ({"suite": "x" * 5000}, TargetError, "There is no SAE directory"),
        ({"saes": ("x" * 5000,)}, TargetError, "is no SAE directory"),
    ],
)
def test_wrong_words_are_answered_before_anything_is_loaded(
    toy_dirs: dict[str, Path],
    suite: Path,
    text: Path,
    fields: dict[str, object],
    error: type[InspectorError],
    says: str,
) -> None:
    generator = open_target(spec(toy_dirs, suite, text, **fields))
    with pytest.raises(error) as caught:
        next(generator)  # before the first event, so before the first import
    assert says in str(caught.value)
    assert type(caught.value) is error
    assert str(caught.value).count(". ") <= 2


def test_choosing_imports_nothing_heavy(toy_dirs: dict[str, Path], suite: Path, text: Path) -> None:
    code = (
        "import sys; from inspector.sources.target import resolve; from inspector.spec import TargetSpec\n"
        f"choice = resolve(TargetSpec(model={str(toy_dirs['llama'])!r}, suite={str(suite)!r}, text={str(text)!r}))\n"
        "assert len(choice.refs) == 4\n"
        "heavy = {'torch', 'numpy', 'transformers', 'sae_lens', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_an_sae_of_another_models_size_is_refused_with_both_sizes(
    toy_dirs: dict[str, Path], text: Path, tmp_path: Path
) -> None:
    write_toy_suite(tmp_path / "resid", d_in=20)
    with pytest.raises(TargetError, match=r"size 20 \(d_in 20 x d_sae 32\) but blocks.1.hook_resid_post gives 16"):
        resolve(spec(toy_dirs, tmp_path / "resid", text))
    write_toy_suite(tmp_path / "attn", d_in=20, site="attn")  # whose width only the model knows
    with pytest.raises(TargetError, match=r"size 20 \(d_in 20 x d_sae 32\) but blocks.1.attn.hook_z gives 24"):
        opened(spec(toy_dirs, tmp_path / "attn", text, site="attn", contexts=2))


def test_an_sae_of_a_layer_the_model_lacks(toy_dirs: dict[str, Path], text: Path, tmp_path: Path) -> None:
    write_toy_suite(tmp_path, layers=(20,))
    with pytest.raises(TargetError, match=r"hook_resid_post is at layer 20, but model .* has layers 0 to 2\."):
        resolve(spec(toy_dirs, tmp_path, text))


def test_notes_about_the_text_and_far_l0s_become_warnings(
    toy_dirs: dict[str, Path], suite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("broken\n" + "".join(json.dumps({"text": "word " * 90}) + "\n" for _ in range(3)))
    loaded, _ = opened(spec(toy_dirs, suite, path, l0=3, contexts=2))
    far = "Nearest to --l0 3 at width 32 is 2, 33% away."
    assert far in loaded.warnings
    assert any(
        warning.startswith("a.jsonl: 1 line could not be read and was left out; line 1: Expecting value at column 1.")
        for warning in loaded.warnings
    )


def copy_with(suite: Path, to: Path, key: str, value: Callable[[int, int], object]) -> dict[str, object]:
    """Copy a suite with one key of every SAE's metadata set, by the SAE's number and how many there are; by SAE id."""
    shutil.copytree(suite, to)
    paths = sorted(to.rglob("cfg.json"))
    written = {}
    for n, path in enumerate(paths):
        about = json.loads(path.read_text())
        about["metadata"][key] = written[str(path.parent.relative_to(to))] = value(n, len(paths))
        path.write_text(json.dumps(about))
    return written


def test_contexts_longer_than_an_sae_was_trained_on_are_told(
    toy_dirs: dict[str, Path], suite: Path, text: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "suite"
    copy_with(suite, copy, "context_size", lambda n, count: 16 if n < count - 1 else None)
    loaded, _ = opened(spec(toy_dirs, copy, text))
    length = loaded.contexts.token_ids.shape[1]
    n = sum(sae.context_size == 16 for sae in loaded.saes)
    assert length > 16 and 0 < n <= len(loaded.saes)
    told = f"{n} of {len(loaded.saes)} SAEs were trained on contexts of 16 tokens and these have {length:,}"
    assert any(warning.startswith(told) for warning in loaded.warnings)
    shorter, _ = opened(spec(toy_dirs, copy, text, context_length=16, positions=(2, None)))
    assert not any("were trained on contexts" in warning for warning in shorter.warnings)


def test_special_tokens_that_an_sae_never_saw_are_told(
    toy_dirs: dict[str, Path], suite: Path, text: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "suite"
    values: list[object] = [True, [0, 1], False, None, []]
    written = copy_with(suite, copy, "exclude_special_tokens", lambda n, _: values[n % len(values)])
    usual, _ = opened(spec(toy_dirs, copy, text))
    assert not any("exclude_special_tokens" in warning for warning in usual.warnings)
    loaded, _ = opened(spec(toy_dirs, copy, text, include_special=True))
    asked = {sae.ref.sae_id: sae.never_saw_special for sae in loaded.saes}
    assert asked == {sae_id: bool(written[sae_id]) for sae_id in asked}
    n = sum(asked.values())
    assert 0 < n < len(asked)
    told = f"{n} of {len(asked)} SAEs were trained without special tokens"
    assert any(warning.startswith(told) for warning in loaded.warnings)

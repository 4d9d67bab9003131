"""`dm-inspect interp` as its users type it: refusals, the estimate, a whole scoring, exports, stops, and the key."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from inspector.cli import interp as command
from inspector.cli.interp import command_line
from inspector.errors import ExitCode
from inspector.interp import chat
from inspector.interp.chat import KEY_VARIABLE
from inspector.spec import TargetSpec
from tests.cli.conftest import Run
from tests.interp.conftest import SETTINGS, Examined
from tests.judge_server import always_yes, coin, judge_server

if TYPE_CHECKING:
    from collections.abc import Generator

    from inspector.sources.target import Loaded

KEY = "canary-0b7d55e1"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything that is written lands here; nobody waits between tries."""
    monkeypatch.setenv("DM_INSPECT_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setenv("DM_INSPECT_ANSWERS_DIR", str(tmp_path / "answers"))
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setattr(chat.Patience, "pause", lambda self, tries: 0.0)
    return tmp_path


@pytest.fixture
def at_hand(judged: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is loaded already."""

    def opened(_target: TargetSpec) -> Generator[Any, None, Loaded]:
        yield from ()
        return judged

    monkeypatch.setattr("inspector.cli.opening.opened", opened)


SMALL = ("--latents", "8", "--window", "7", "--shown", "12")


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "No judge is named"),
        (("--judge-url", "http://localhost:1"), "No judge is named"),
        (("--judge-url", "localhost", "--judge-model", "m"), "is no address"),
        (("--judge-url", "http://me:secret@host", "--judge-model", "m"), "holds a user name"),
        (("--judge", "llama"), "is not of the form local:DIR"),
        (("--judge", "local:"), "is not of the form local:DIR"),
        (("--judge", "local:x", "--judge-model", "m"), "Use one."),
        (("--scorer", "guessing"), "guessing"),
        (("--latents", "0"), "latents"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    run: Run, place: Path, words: tuple[str, ...], said: str
) -> None:
    outcome = run("interp", *words)
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")
    assert said in outcome.err and "secret" not in outcome.err


def test_a_local_judge_that_is_not_there_is_a_target_that_cannot_be_loaded(run: Run, place: Path) -> None:
    outcome = run("interp", "--judge", f"local:{place}/none")
    assert outcome.code == ExitCode.TARGET and "There is no model directory" in outcome.err


def test_a_key_that_is_none_is_refused_without_being_shown(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, f"{KEY} x")
    outcome = run("interp", "--judge-url", "http://localhost:1", "--judge-model", "m")
    assert outcome.code == ExitCode.USAGE and KEY not in outcome.err + outcome.out


def test_many_saes_are_not_judged_by_accident(
    run: Run, place: Path, judged: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    def opened(_target: TargetSpec) -> Generator[Any, None, Loaded]:
        yield from ()
        return replace(judged, saes=judged.saes * 2)

    monkeypatch.setattr("inspector.cli.opening.opened", opened)
    outcome = run("interp", "--estimate")
    assert outcome.code == ExitCode.USAGE and "The target has 2 SAEs" in outcome.err


def test_an_estimate_asks_nobody(run: Run, place: Path, at_hand: None, examined: Examined) -> None:
    n = len(examined.only.latents)
    outcome = run("interp", *SMALL, "--estimate", "--json")
    assert outcome.code == 0
    told = json.loads(outcome.out)
    assert (told["questions"], told["known"]) == (n * 11, 0)
    assert told["saes"][0]["n_drawn"] == SETTINGS.latents
    words = run("interp", *SMALL, "--estimate")
    assert f"{n} of {SETTINGS.latents} latents" in words.out and f"{n * 11} questions; about" in words.out


def test_a_whole_scoring_with_its_exports(run: Run, place: Path, at_hand: None, examined: Examined) -> None:
    with judge_server(coin(1), faults=[None, "429", "500"]) as server:
        judge = ("--judge-url", server.url, "--judge-model", "coin")
        outcome = run("interp", *SMALL, *judge, "--json", "--out", str(place / "out"))
        assert outcome.code == 0, outcome.err
        result = json.loads(outcome.out)
        assert "scoring: " in outcome.err and "2 tries repeated" in outcome.err
        assert server.keys == [f"Bearer {KEY}"] * server.tried
        n_asked = len(server.asked)
        again = run("interp", *SMALL, *judge, "--json")
        assert json.loads(again.out) == result and len(server.asked) == n_asked, "nothing is asked twice"
    assert json.loads((place / "out" / "interp.json").read_text()) == result
    assert result["saes"][0]["n_scored"] == len(examined.only.latents)

    shown = run("results", "list", "--json")
    (row,) = json.loads(shown.out)["results"]
    assert row["experiment"] == "interp"
    assert shlex.split(row["command"])[:4] == ["dm-inspect", "interp", "--latents", "8"]
    page = run("results", "show", row["id"])
    assert page.code == 0 and "Detection accuracy by decile of activation" in page.out
    assert "control chance" in page.out
    table = run("results", "export", row["id"], "--format", "csv")
    assert table.code == 0 and "accuracy_q10_low" in table.out.splitlines()[0]
    claims = run("results", "claims", "--json")
    (c9,) = [each for each in json.loads(claims.out)["claims"] if each["id"] == "C9"]
    assert c9["why"] == "No result of interp-error-saes: `dm-inspect interp --error-saes DIR`."
    refused = run("run", "interp")
    assert refused.code == ExitCode.USAGE and "Use `dm-inspect interp`" in refused.err

    written = everything_in(place)
    assert len(written) > 100_000 and KEY.encode() not in written
    for said in (outcome, again, shown, page, table):
        assert KEY not in said.out + said.err


def test_examples_are_exported_as_they_were_shown(run: Run, place: Path, at_hand: None, examined: Examined) -> None:
    with judge_server(always_yes()) as server:
        judge = ("--judge-url", server.url, "--judge-model", "yes", "--quiet")
        assert run("interp", *SMALL, *judge, "--out", str(place / "out")).code == 0
    (path,) = (place / "out" / "examples").iterdir()
    told = json.loads(path.read_text())
    for latent, expected in zip(told["latents"], examined.only.latents, strict=True):
        assert latent["latent"] == expected.index
        assert [len(decile) for decile in latent["deciles"]] == [7] * 10 and len(latent["negatives"]) == 50
        first, example = latent["deciles"][9][0], expected.deciles[9][0]
        assert first["token_ids"] == example.token_ids.tolist()
        np.testing.assert_array_equal(np.float32(first["activations"]), example.activations)
        assert first["tokens"] == examined.loaded.model.token_texts(example.token_ids.tolist())


def test_the_cache_of_delphi_holds_every_activation(run: Run, place: Path, at_hand: None, examined: Examined) -> None:
    """Read back as its loader does: the latent's number is the third column and the first number of the file's name."""
    with judge_server(always_yes()) as server:
        judge = ("--judge-url", server.url, "--judge-model", "yes", "--quiet")
        assert run("interp", *SMALL, *judge, "--out", str(place / "out")).code == 0
    (folder,) = (place / "out" / "delphi").iterdir()
    (path,) = folder.glob("*.safetensors")
    start, end = map(int, path.stem.split("_"))
    ref = examined.only.reader.sae.ref
    assert (start, end) == (0, ref.d_sae - 1)
    data = load_file(path)
    windows, token_ids = examined.windows, examined.loaded.contexts.token_ids
    assert data["locations"].dtype == np.uint16 and data["activations"].dtype == np.float16
    assert data["tokens"].shape == (len(windows), windows.length)
    dense = np.zeros((len(windows), windows.length, ref.d_sae))
    rows, places, latents = data["locations"].astype(np.int64).T
    dense[rows, places, latents + start] = data["activations"]
    x = examined.loaded.model.activations(token_ids, examined.loaded.hook_name)
    full = np.concatenate([part.numpy().copy() for _, part in examined.only.reader.sae.chunks(x.flatten(0, 1))])
    full = full.reshape(*token_ids.shape, -1)
    for row in range(0, len(windows), 37):
        context, first = int(windows.contexts[row]), int(windows.starts[row])
        here = slice(first, first + windows.length)
        assert data["tokens"][row].tolist() == token_ids[context, here].tolist()
        expected = np.zeros((windows.length, ref.d_sae))
        expected[:, examined.only.drawn] = full[context, here][:, examined.only.drawn]
        np.testing.assert_allclose(dense[row], expected, rtol=1e-3, atol=1e-6)  # half precision: 2^-11
    config = json.loads((folder / "config.json").read_text())
    assert (config["ctx_len"], config["n_tokens"]) == (windows.length, data["tokens"].size)


def test_a_judge_that_is_not_there_is_a_target_that_cannot_be_reached(run: Run, place: Path, at_hand: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        outcome = run("interp", *SMALL, "--judge-url", url, "--judge-model", "m")
    assert (outcome.code, outcome.out) == (ExitCode.TARGET, "")
    assert "nothing is connected there" in outcome.err and KEY not in outcome.err


def test_a_judge_from_disk_that_has_learned_nothing_is_counted_and_not_believed(
    run: Run, place: Path, at_hand: None, examined: Examined, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.toy import write_toy_model

    folder = write_toy_model(place / "judge", "llama", context=4096)
    monkeypatch.setattr("inspector.interp.prompts.EXPLANATION_TOKENS", 8)
    outcome = run("interp", *SMALL, "--judge", f"local:{folder}", "--json", "--quiet")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["saes"]
    n = len(examined.only.latents)
    assert (row["n_unexplained"], row["n_scored"], row["balanced_accuracy"]) == (n, 0, None)
    shown = run("results", "show", "interp")
    assert shown.code == 0 and "none that could be read" in shown.out


def test_a_stop_keeps_what_was_answered(run: Run, place: Path, at_hand: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    with judge_server(always_yes()) as server:

        @contextmanager
        def interrupted() -> Any:
            yield lambda: len(server.asked) >= 30

        monkeypatch.setattr("inspector.cli.opening.interruptible", interrupted)
        words = ("interp", *SMALL, "--judge-url", server.url, "--judge-model", "yes", "--parallel", "1")
        outcome = run(*words)
        assert (outcome.code, outcome.out) == (ExitCode.CANCELLED, "")
        assert "The same command goes on where it stopped" in outcome.err
        before = len(server.asked)
        monkeypatch.undo()
    assert before >= 30


def test_the_command_that_repeats_it_names_what_differs_from_the_defaults() -> None:
    words = {"latents": 100, "scorer": "fuzzing", "window": 32, "shown": 4, "control": True}
    target = TargetSpec(saes=("a b",))
    assert command_line(target, words, "http://h", "m", None, None) == (
        "dm-inspect interp --sae 'a b' --scorer fuzzing --control --judge-url http://h --judge-model m"
    )
    assert command_line(target, words, None, None, "local:d", Path("e")) == (
        "dm-inspect interp --sae 'a b' --error-saes e --scorer fuzzing --control --judge local:d"
    )
    assert command.LOCAL == "local:"

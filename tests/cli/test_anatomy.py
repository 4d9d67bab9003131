"""`dm-inspect anatomy` and `dm-inspect latent` on a toy: the session's own answers, as text and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inspector.drawing.scales import format_cell
from inspector.session.card_tables import _bounded
from tests.cli.conftest import Run
from tests.commands import Done, commands


@pytest.fixture(scope="module")
def toy_words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """TARGET of a toy: a Gemma 2 with TopK SAEs of two widths and two L0s."""
    from tests.toy import fit_toy_suite, write_toy_model, write_toy_suite

    folder = tmp_path_factory.mktemp("toy")
    text = Path(__file__).read_text(encoding="utf-8") * 2
    (folder / "text.txt").write_text(text, encoding="utf-8")
    model = write_toy_model(folder / "model")
    suite = fit_toy_suite(write_toy_suite(folder / "suite"), model, text)
    return ["--model", str(model), "--suite", str(suite), "--text", str(folder / "text.txt"), "--contexts", "20",
            "--context-length", "32", "--device", "cpu", "--quiet"]  # fmt: skip


NARROW, WIDE = "layer_1/resid/width_32/l0_2", "layer_1/resid/width_64/l0_2"


@pytest.fixture(scope="module")
def done(toy_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Done]:
    """All commands in one process: importing the libraries is most of what they cost."""
    lines = tmp_path_factory.mktemp("prompts") / "lines.txt"
    lines.write_text("the error\nof a token", encoding="utf-8")
    own = [
        ["anatomy", "--context", "4", "--position", "9", "--sae", NARROW, "--json"],
        ["anatomy", "--context", "4", "--sae", NARROW],
        ["anatomy", "--prompt", "the error of a token", "--sae", WIDE],
        ["latent", "--sae", WIDE, "--latent", "5", "--json"],
        ["latent", "--latent", "5"],
        ["anatomy", "--context", "99"],
        ["anatomy", "--context", "1", "--position", "77"],
        ["anatomy", "--context", "1", "--sae", "layer_1/resid/width_32/l0_3"],
        ["latent", "--latent", "64", "--sae", WIDE],
        ["anatomy", "--prompt-file", str(lines), "--sae", WIDE, "--position", "3", "--json"],
        ["anatomy", "--prompt-file", str(lines), "--prompt-file", str(lines)],
        ["tokens", "--prompt-file", str(lines), "--prompt-file", __file__, "--context-length", "64"],
    ]
    return commands(tmp_path_factory.mktemp("home"), [[*words, *toy_words] for words in own])


def test_json_has_every_section_with_its_control(done: list[Done]) -> None:
    assert done[0].code == 0, done[0].err
    told = json.loads(done[0].out)
    assert (told["source"], told["context"], told["position"], told["sae"]) == ("context", 3, 9, NARROW)
    assert [each["sae_id"] for each in told["widths"]] == [NARROW, WIDE]
    assert [each["sae_id"] for each in told["directions"]] == [NARROW, WIDE]
    assert {"share", "random", "random_most", "others"} <= told["directions"][0]["shares"][0].keys()
    assert [each["arm"] for each in told["splices"]] == ["Sae", "Sae + linear", "Sae + nonlinear", "x"]
    assert told["splices"][3]["kl"] == pytest.approx(0.0, abs=1e-12)
    wider = told["wider"]
    assert wider["sae_id"] == WIDE and abs(wider["gap"]) < 1e-5
    assert wider["of_latents"] + wider["rest"] + wider["left"] == pytest.approx(1.0, abs=1e-5)
    assert len(told["similar"]["found"]) == 12


def test_text_names_the_worst_token_and_says_how_to_read_each_table(done: list[Done]) -> None:
    text = done[1].out
    assert done[1].code == 0, done[1].err
    assert text.startswith("context 4, position ")
    for title in ("from width to width", "next token", f"Latents of {WIDE} that take it up", "few decoder directions",
                  "most similar nonlinear_error"):  # fmt: skip
        assert title in text
    assert "they are not orthogonal on one token" in text
    assert done[2].code == 0 and done[2].out.startswith("the prompt, position ")
    assert "No SAE that is loaded is wider" in done[2].out


def shown(value: float) -> str:
    return format_cell(_bounded(value), 2)


def test_a_latent_has_its_card(done: list[Done]) -> None:
    assert done[3].code == 0, done[3].err
    told = json.loads(done[3].out)
    assert (told["sae_id"], told["index"]) == (WIDE, 5)
    assert not {"request", "type", "card"} & told.keys()
    assert sum(each["n"] for each in told["histogram"]) == round(told["density"] * told["n_tokens"])
    for example in [*told["examples"], *told["drawn"]]:
        assert len(example["activations"]) == len(example["tokens"])
        assert example["activations"][example["position"] - example["start"]] > 0
    assert [each["sae_id"] for each in told["across"]] == [NARROW]
    assert len(told["top"]) == len(told["bottom"]) == 10
    text = done[4].out
    assert text.startswith("latent 5 of SAE ")
    assert "How strong it is where it is active" in text and "favours" in text


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (5, "beyond the last of 20 contexts"),
        (6, "beyond the text of 32 tokens"),
        (7, "not among the target's SAEs. Nearest"),
        (8, "has no latent 64"),
    ],
)
def test_what_is_not_there_is_refused(done: list[Done], number: int, says: str) -> None:
    assert done[number].code == 2
    assert says in done[number].err


def test_one_text_is_meant(run: Run) -> None:
    for words in ([], ["--context", "1", "--prompt", "x"]):
        outcome = run("anatomy", *words)
        assert outcome.code == 2 and "Either --context N, --prompt TEXT or --prompt-file FILE" in outcome.err


def test_a_file_is_one_text_with_all_its_lines_and_several_stand_in_one_table(done: list[Done]) -> None:
    assert done[9].code == 0, done[9].err
    assert json.loads(done[9].out)["source"] == "prompt"
    assert done[10].code == 2 and "--prompt-file FILE says which text. Give one of them." in done[10].err
    assert done[11].code == 4 and "takes" in done[11].err, "the second is too long, which is said before anything"


def test_a_cosine_of_nearly_nothing_is_rounded_like_its_neighbours(done: list[Done]) -> None:
    """Text had -3.2e-03 in a column of 0.27 and 0.91."""
    assert [shown(value) for value in (-0.0032, 0.0049, 0.005001, -0.996, 1.0)] == [
        "0.00",
        "0.00",
        "0.01",
        "-1.00",
        "1.00",
    ]
    first = done[1].out.partition("In the units of x")[0]
    assert "from width to width" in first and "e-0" not in first


def test_importing_the_commands_brings_no_torch() -> None:
    code = (
        "import sys, inspector.cli.anatomy, inspector.cli.latent, inspector.session.card_tables as c; "
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

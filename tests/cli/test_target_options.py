"""TARGET: text in, TargetSpec out, and one clear sentence where it contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.options import parse_width, width_label
from inspector.spec import TargetSpec
from tests.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("terminal")


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("256", 256),
        ("1k", 1024),
        ("2k", 2048),
        ("4k", 4096),
        ("16k", 16_384),
        ("32k", 32_768),
        ("65k", 65_536),
        ("131k", 131_072),
        ("262k", 262_144),
        ("524k", 524_288),
        ("1m", 1_048_576),
        ("6k", 6144),
        ("24k", 24_576),
        ("10K", 10_240),
        ("100k", 100_000),
        ("24000", 24_000),
    ],
)
def test_a_label_denotes_the_width_of_the_field(text: str, width: int) -> None:
    assert parse_width(text) == width


def test_every_power_of_two_is_found_by_its_own_label() -> None:
    widths = [2**k for k in range(8, 22)]
    assert [parse_width(width_label(width)) for width in widths] == widths


def test_without_options_the_app_opens_on_the_defaults(run: Run) -> None:
    outcome = run()
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "")
    assert [request.target for request in outcome.opened] == [TargetSpec()]


def test_every_option_reaches_its_field(run: Run) -> None:
    outcome = run(
        *("--model", "m", "--layer", "3", "--site", "mlp", "--suite", "s", "--sae", "a", "--sae", "b"),
        *("--widths", "256,1k", "--l0", "60", "--text", "t.txt", "--contexts", "7", "--context-length", "64"),
        *("--positions", "8:32", "--train-tokens", "999", "--split", "token", "--seed", "5", "--device", "cuda:1"),
        *("--dtype", "bfloat16", "--offline", "--cache-dir", "c", "--accept-gate"),
        *("--max-memory", "20G", "--include-special", "--outliers", "off"),
        *("--theme", "light", "--new-session"),
    )
    (request,) = outcome.opened
    assert request.target == TargetSpec(
        model="m",
        layers=(3,),
        site="mlp",
        suite="s",
        saes=("a", "b"),
        widths=(256, 1024),
        l0=60.0,
        text="t.txt",
        contexts=7,
        context_length=64,
        positions=(8, 32),
        train_tokens=999,
        split="token",
        seed=5,
        device="cuda:1",
        dtype="bfloat16",
        offline=True,
        cache_dir="c",
        accept_gate=True,
        max_memory=20_000_000_000,
        include_special=True,
        outliers=None,
    )
    assert (request.theme, request.new_session, request.in_process) == ("light", True, False)


def test_layers_are_a_half_open_range(run: Run) -> None:
    (request,) = run("--layers", "2:5").opened
    assert request.target.layers == (2, 3, 4)
    (request,) = run("--layers", "2:").opened
    assert (request.target.layers, request.target.layers_from) == (None, 2)


@pytest.mark.parametrize(("text", "span"), [("200:", (200, None)), (":50", (0, 50)), ("3:4", (3, 4))])
def test_positions_may_be_open(run: Run, text: str, span: tuple[int, int | None]) -> None:
    (request,) = run("--positions", text).opened
    assert request.target.positions == span


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--layer", "1", "--layers", "1:3"), "--layer and --layers were both given. Leave one out."),
        (
            ("--hook", "blocks.0.hook_x", "--site", "resid"),
            "--hook names the layer and site by itself. Leave out --layer, --layers and --site.",
        ),
        (("--new-session", "--in-process"), "--new-session and --in-process contradict each other. Leave one out."),
        (
            ("--widths", "1k,big"),
            "--widths: 'big' is not a width. Write numbers or labels with commas, such as 256,1k,16k.",
        ),
        (
            ("--widths", "0"),
            "--widths: '0' is not a width. Write numbers or labels with commas, such as 256,1k,16k.",
        ),
        (
            ("--layers", "3-5"),
            "--layers: '3-5' is not a range. Write 10:14, whose end is not included, or 10: for all from 10 on.",
        ),
        (
            ("--positions", "9:9"),
            "--positions: '9:9' is empty. The end is not included, so it must be larger than the start.",
        ),
        (
            ("--device", "gpu"),
            "--device: 'gpu' is not a device. Write auto, cpu, mps, cuda or cuda:1.",
        ),
        (
            ("--contexts", "0"),
            "--contexts: 0 is not in the range x>=1. See `dm-inspect --help`.",
        ),
        (("--modle", "x"), "There is no option '--modle'. Nearest: --model, --offline, --outliers."),
        (("rum",), "There is no command 'rum'. Nearest: run, results."),
        (("--seed", "1", "info"), "--seed stands before `info`, where only the app reads it. Write it after `info`."),
    ],
)
def test_a_contradiction_is_one_sentence_on_stderr_and_code_2(run: Run, args: tuple[str, ...], message: str) -> None:
    outcome = run(*args)
    assert (outcome.code, outcome.out, outcome.err, outcome.opened) == (2, "", f"error: {message}\n", ())


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("20G", 20 * 10**9),
        ("800M", 8 * 10**8),
        ("1.5GiB", 3 * 2**29),
        ("4096", 4096),
        ("2 gb", 2 * 10**9),
        ("64k", 64_000),
    ],
)
def test_an_amount_of_memory_is_bytes(run: Run, text: str, n_bytes: int) -> None:
    (request,) = run("--max-memory", text).opened
    assert request.target.max_memory == n_bytes


@pytest.mark.parametrize("text", ["0", "20 X", "-1G", "G", "0.0001", "1e9", "∞"])
def test_anything_else_is_none(run: Run, text: str) -> None:
    outcome = run("--max-memory", text)
    assert outcome.code == 2
    assert "is not an amount of bytes. Write 20G, 800M, or 16GiB." in outcome.err


@pytest.mark.parametrize("text", ["float16", "fp16", "half"])
def test_float16_gets_the_reason(run: Run, text: str) -> None:
    outcome = run("--dtype", text)
    assert (outcome.code, outcome.opened) == (2, ())
    assert "float16 ends at 65,504, which activations of Gemma pass" in outcome.err


def test_another_dtype_gets_the_choices(run: Run) -> None:
    assert "'auto', 'float32', 'bfloat16'" in run("--dtype", "int8").err


# ---- a text in a file -----------------------------------------------------------------------------------------------


def test_the_app_begins_with_the_whole_text_of_a_file(run: Run, terminal: None, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes("one\n\ttwo \x1b[31m\r\n\n  déjà \n".encode())
    outcome = run("--prompt-file", str(path))
    assert outcome.code == 0
    assert outcome.opened[0].prompts == ("one\n\ttwo \x1b[31m\r\n\n  déjà \n",)
    outcome = run("--prompt-file", str(path), "--prompt-file", str(path))
    assert outcome.opened[0].prompts == outcome.opened[0].prompts[:1] * 2


@pytest.mark.parametrize("command", [(), ("tokens",)])
def test_a_prompt_file_that_cannot_be_read_is_told_with_its_code(
    run: Run, terminal: None, tmp_path: Path, command: tuple[str, ...]
) -> None:
    for name, content, code in (("none", None, 2), ("empty", b"", 4), ("latin", b"\xe9t\xe9", 4)):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        outcome = run(*command, "--prompt-file", str(path))
        assert (outcome.code, outcome.opened) == (code, ())
        assert str(path) in outcome.err and outcome.err.rstrip().endswith(".")


def test_a_prompt_comes_from_one_place(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("a")
    outcome = run("tokens", "--prompt", "b", "--prompt-file", str(path))
    assert (outcome.code, outcome.err) == (2, "error: --prompt and --prompt-file were both given. Leave one out.\n")
    monkeypatch.setattr("inspector.cli.main.has_terminal", lambda: False)
    outcome = run("--prompt-file", str(path))
    assert outcome.code == 2 and "dm-inspect tokens --prompt-file" in outcome.err

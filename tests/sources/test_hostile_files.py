"""Files that want something else than to be loaded: one sentence each, soon; nothing outside their folder is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector.disk.files import read_json
from inspector.errors import TargetError
from inspector.sources.model_files import find_model
from inspector.sources.sae_loading import load_sae
from inspector.sources.suites import list_suite
from inspector.sources.target import resolve
from inspector.spec import TargetSpec
from tests.toy import write_toy_sae

HOOK = "blocks.1.hook_resid_post"
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000


@pytest.fixture
def model(tmp_path: Path, toy_dirs: dict[str, Path]) -> Path:
    return Path(shutil.copytree(toy_dirs["gemma2"], tmp_path / "model"))


def opened(model: Path, folder: Path) -> None:
    if not (folder / "sae").exists():
        write_toy_sae(folder / "sae" / "a", d_in=16, d_sae=64, k=4, hook_name=HOOK)
    (folder / "t.txt").write_text("text")
    resolve(TargetSpec(model=str(model), suite=str(folder / "sae"), text=str(folder / "t.txt"), context_length=32))


def configured(model: Path, **fields: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_hidden_layers": 10**9}, "asks for 1,000,000,000 layers, but its weights are"),
        ({"num_hidden_layers": -1}, r"asks for -1 layers|has layers 0 to -2"),
        ({"vocab_size": 10**11}, "asks for 16 dimensions, 3 layers and 100,000,000,000 tokens, but its weights are"),
        ({"intermediate_size": 10**11}, "but its weights are"),
        ({"hidden_size": 10**12}, "gives 1000000000000"),
    ],
)
def test_a_configuration_that_asks_for_more_than_there_is(
    model: Path, tmp_path: Path, fields: dict[str, object], sentence: str
) -> None:
    opened(model, tmp_path)
    configured(model, **fields)
    with pytest.raises(TargetError, match=sentence):
        opened(model, tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (DEEP, "nested too deeply"),
        ('{"model_type":"gemma2","a":"' + "x" * (1 << 24) + '"}', "bytes, which no configuration has"),
        ("[]", "does not describe a transformers model"),
        ("\x00", "cannot be read as JSON"),
    ],
)
def test_a_configuration_that_is_none(model: Path, content: str, sentence: str) -> None:
    (model / "config.json").write_text(content)
    with pytest.raises(TargetError, match=sentence):
        find_model(str(model))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_json(tmp_path / "pipe")
    folder = write_toy_sae(tmp_path / "a", d_in=16, d_sae=64, k=4, hook_name=HOOK)
    ref = list_suite(folder)[0]
    (folder / "sae_weights.safetensors").unlink()
    os.mkfifo(folder / "sae_weights.safetensors")
    with pytest.raises(TargetError, match="is not a regular file"):
        load_sae(ref, torch.device("cpu"), 16)
    (folder / "cfg.json").unlink()
    os.mkfifo(folder / "cfg.json")
    with pytest.raises(TargetError, match=r"cfg\.json is not a regular file"):
        list_suite(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/../../outside.safetensors"])
def test_weights_outside_the_folder_are_not_read(model: Path, tmp_path: Path, name: str) -> None:
    shutil.move(model / "model.safetensors", tmp_path / "outside.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(TargetError, match="is not a file beside it"):
        find_model(str(model))


@pytest.mark.parametrize("commit", ["../../../elsewhere", "/etc", "", "..", "a/b", "\udcff"])
def test_a_branch_that_leads_out_of_the_cache_is_not_followed(model: Path, tmp_path: Path, commit: str) -> None:
    cache = tmp_path / "cache"
    repository = cache / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "snapshots").mkdir()
    shutil.copytree(model, tmp_path / "elsewhere")
    (repository / "refs" / "main").write_bytes(commit.encode("utf-8", "surrogateescape"))
    with pytest.raises(TargetError, match="neither a directory nor in the Hugging Face cache"):
        find_model("some/model", str(cache))


def sae(folder: Path, **fields: object) -> Any:
    write_toy_sae(folder, d_in=16, d_sae=64, k=4, hook_name=HOOK)
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | fields))
    return load_sae(list_suite(folder)[0], torch.device("cpu"), 16)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"d_sae": float("inf")}, "cannot convert float infinity"),
        ({"d_in": float("nan")}, "cannot convert float NaN"),
        ({"d_sae": -4}, "are no sizes of an SAE"),
        ({"d_sae": 10**30}, "are no sizes of an SAE"),
        ({"d_sae": []}, "is not of a whole SAE of the layout sae-lens"),
        ({"k": 65}, "keeps the 65 largest of 64 latents"),
        ({"k": 0}, "keeps the 0 largest"),
        ({"k": -1}, "keeps the -1 largest"),
        ({"k": "4"}, "keeps the '4' largest"),
        ({"k": None}, "keeps the None largest|cannot be loaded"),
        ({"architecture": "__import__('os')"}, "of the architecture .* not known here"),
        ({"metadata": []}, "does not say which hook"),
    ],
)
def test_an_sae_that_is_none(tmp_path: Path, fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(TargetError, match=sentence):
        sae(tmp_path / "a", **fields)


def test_a_deeply_nested_sae(tmp_path: Path) -> None:
    folder = write_toy_sae(tmp_path / "a", d_in=16, d_sae=64, k=4, hook_name=HOOK)
    (folder / "cfg.json").write_text(DEEP)
    with pytest.raises(TargetError, match="nested too deeply"):
        list_suite(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.update(W_enc=w["W_enc"].mul(10).to(torch.int32)), "stores W_enc as int32, not as floating-point"),
        (lambda w: w.update(b_enc=w["b_enc"] > 0), "stores b_enc as bool"),
        (lambda w: w["b_dec"].fill_(float("nan")), "not finite, in b_dec"),
        (lambda w: w["W_enc"][3, 5].fill_(float("inf")), "not finite, in W_enc"),
        (lambda w: w.update(W_enc=w["W_enc"].T.contiguous()), "W_enc of shape"),
    ],
)
def test_weights_that_are_none(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], sentence: str
) -> None:
    folder = write_toy_sae(tmp_path / "a", d_in=16, d_sae=64, k=4, hook_name=HOOK)
    weights = load_file(folder / "sae_weights.safetensors")
    change(weights)
    save_file(weights, folder / "sae_weights.safetensors")
    with pytest.raises(TargetError, match=sentence):
        load_sae(list_suite(folder)[0], torch.device("cpu"), 16)

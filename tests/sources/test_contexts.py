"""Which tokens are measured: reproducible, BOS first, nothing padded, nothing cut without saying so."""

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch

from inspector.errors import DataError, UsageError
from inspector.sources import contexts as contexts_module
from inspector.sources.contexts import contexts_from, default_context_length, default_positions, load_contexts
from inspector.sources.model import LanguageModel
from inspector.spec import TargetSpec

WORDS = [f"{a}{b}" for a in "bcdfgh" for b in "aeiou"]


def prose(n_words: int, start: int = 0) -> str:
    return " ".join(WORDS[(start + i * i) % 30] for i in range(n_words))


@pytest.fixture
def toy(toys: dict[str, LanguageModel]) -> LanguageModel:
    return toys["llama"]


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Stand-ins for the demo's documents: one long, three short, one too short."""
    listed = [("long.py", prose(400)), *((f"{i}.py", prose(40, i)) for i in range(3)), ("tiny.py", "x")]
    monkeypatch.setattr(contexts_module, "demo_documents", lambda *, sources: iter(listed))
    return listed


def spec(**fields: object) -> TargetSpec:
    return TargetSpec(**({"model": "toy", "context_length": 16, "contexts": 4} | fields))  # type: ignore[arg-type]


def test_defaults_are_the_papers_where_they_fit() -> None:
    assert [default_context_length(n_ctx) for n_ctx in (256, 1024, 8192)] == [256, 1024, 1024]
    assert [default_positions(length) for length in (64, 256, 1023, 1024, 2048)] == [
        (8, None),
        (32, None),
        (127, None),
        (200, None),
        (200, None),
    ]


def test_windows_of_a_text_are_its_own_consecutive_tokens_after_bos(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(prose(300))
    whole = toy.encode(prose(300))[1:]
    contexts = load_contexts(spec(text=str(path), contexts=1000), toy)
    n_windows = len(whole) // 15
    assert contexts.token_ids.shape == (n_windows, 16)
    assert (contexts.token_ids[:, 0] == toy.bos_id).all()
    assert contexts.token_ids[:, 1:].flatten().tolist() == whole[: n_windows * 15]
    assert contexts.names[:2] == ("a.txt tokens 0-14", "a.txt tokens 15-29")
    assert contexts.notes == (f"1,000 contexts were asked for; a.txt has {n_windows} of 16 tokens.",)


def test_a_choice_is_seeded_and_in_the_order_of_the_text(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(prose(600))
    one, again, other = (load_contexts(spec(text=str(path), seed=seed), toy) for seed in (1, 1, 2))
    assert one.sha256 == again.sha256 != other.sha256
    starts = [int(name.split()[-1].split("-")[0]) for name in one.names]
    assert starts == sorted(starts)
    assert len(set(starts)) == 4
    assert not one.notes


def test_hash_is_of_the_ids_as_little_endian_integers() -> None:
    contexts = contexts_from([[1, 5, 6], [1, 7, 299]], ["a", "b"])
    assert contexts.sha256 == hashlib.sha256(struct.pack("<6q", 1, 5, 6, 1, 7, 299)).hexdigest()
    assert contexts.token_ids.dtype == torch.int64


def test_documents_are_drawn_from_evenly(toy: LanguageModel, documents: list[tuple[str, str]]) -> None:
    contexts = load_contexts(spec(text="demo", contexts=4), toy)
    assert {name.split()[0] for name in contexts.names} == {"long.py", "0.py", "1.py", "2.py"}
    more = load_contexts(spec(text="demo", contexts=12), toy)
    assert more.names[:4] == contexts.names  # fewer contexts are a beginning of more
    from_long = sum(name.startswith("long.py") for name in more.names)
    assert 3 <= from_long <= 6
    assert len(set(more.names)) == 12
    assert load_contexts(spec(text="demo", contexts=12, seed=1), toy).sha256 != more.sha256


def test_names_tell_document_and_tokens(toy: LanguageModel, documents: list[tuple[str, str]]) -> None:
    contexts = load_contexts(spec(text="demo", contexts=12), toy)
    texts = dict(documents)
    for name, ids in zip(contexts.names, contexts.token_ids.tolist(), strict=True):
        document, _, place = name.split()
        start, last = map(int, place.split("-"))
        assert toy.encode(texts[document])[1:][start : last + 1] == ids[1:]


def test_records_give_their_first_tokens_one_context_each(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    texts = [prose(5 if i % 3 == 0 else 200, i) for i in range(30)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    contexts = load_contexts(spec(text=str(path), contexts=10), toy)
    numbers = [int(name.removeprefix("a.jsonl record ")) for name in contexts.names]
    assert len(set(numbers)) == 10
    assert all((number - 1) % 3 for number in numbers)  # the short ones are skipped
    for number, ids in zip(numbers, contexts.token_ids.tolist(), strict=True):
        assert ids == toy.encode(texts[number - 1])[:16]
    assert load_contexts(spec(text=str(path), contexts=10, seed=1), toy).names != contexts.names
    everything = load_contexts(spec(text=str(path), contexts=99), toy)
    assert everything.notes == ("99 contexts were asked for; a.jsonl has 20 of 16 tokens.",)


def test_long_records_are_shortened_without_changing_a_token(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    texts = [("the model reads " * 3000)[i:] for i in range(8)] + [" " * 9 + "日本" * 999, "\t" * 4000 + prose(99)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    contexts = load_contexts(spec(text=str(path), contexts=10, context_length=64), toy)
    assert len(contexts.names) == 10
    for name, ids in zip(contexts.names, contexts.token_ids.tolist(), strict=True):
        assert ids == toy.encode(texts[int(name.split()[-1]) - 1])[:64]


def test_literal_bos_in_a_text_is_not_a_second_bos(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("<bos>" * 3 + " ".join(["<bos> token"] * 40))
    ids = load_contexts(spec(text=str(path), contexts=100), toy).token_ids
    assert ((ids == toy.bos_id).sum(dim=1) == 1).all()


def test_too_short_a_text_says_how_long_it_is(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abcdefg")
    n = len(toy.encode("abcdefg"))
    says = rf"^a.txt has no text of 16 tokens; the longest has {n}\. Give a longer --text, or --context-length {n} or"
    with pytest.raises(DataError, match=says):
        load_contexts(spec(text=str(path)), toy)
    assert load_contexts(spec(text=str(path), context_length=n), toy).token_ids.shape == (1, n)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "abc"}\n{"text": "abcde"}\n')
    with pytest.raises(DataError, match=r"^a.jsonl has no text of 16 tokens; the longest has"):
        load_contexts(spec(text=str(path)), toy)


def test_impossible_sizes(toy: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--context-length 65 is more than the model takes. Use 64 or less\."):
        load_contexts(spec(context_length=65), toy)
    with pytest.raises(UsageError, match="--contexts 0 leaves nothing"):
        load_contexts(spec(contexts=0), toy)
    with pytest.raises(UsageError, match="--context-length 2 leaves no token to predict"):
        load_contexts(spec(context_length=2), toy)


def test_a_model_without_bos_gets_windows_without_one(
    toy: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.tokenizer, "bos_id", None)
    path = tmp_path / "a.txt"
    path.write_text(prose(100))
    ids = load_contexts(spec(text=str(path), contexts=2), toy).token_ids
    assert ids.shape == (2, 16)
    assert (ids != 1).all()


def test_the_field_is_told_with_the_contexts(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"url": "x" * 9, "content": prose(40, i), "summary": prose(50, i + 1)} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = load_contexts(spec(text=str(path)), toy)
    named = load_contexts(spec(text=str(path), text_field="content"), toy)
    other = load_contexts(spec(text=str(path), text_field="summary"), toy)
    assert (chosen.field, named.field, other.field) == ("content", "content", "summary")
    assert chosen.sha256 == named.sha256 != other.sha256
    assert load_contexts(spec(text=str(path.with_name("a.jsonl"))), toy).sha256 == chosen.sha256
    with pytest.raises(DataError, match=r"has no field 'body'; its fields: url \(text\), content \(text\), summary"):
        load_contexts(spec(text=str(path), text_field="body"), toy)


def test_halves_of_surrogate_pairs_reach_no_tokenizer(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "\\ud83d ' + prose(40) + '"}\n')
    contexts = load_contexts(spec(text=str(path), contexts=1), toy)
    assert contexts.token_ids[0].tolist() == toy.encode("\ufffd " + prose(40))[:16]
    assert contexts.notes == ("a.jsonl: 1 character was no valid UTF-8 or half a surrogate pair and became U+FFFD.",)
    assert toy.encode("caf\udce9") == toy.encode("caf\ufffd")


def test_separators_that_are_special_tokens_are_told(toy: LanguageModel, tmp_path: Path) -> None:
    """The toy's `<bos>` in a text is spelled, its `<eos>` is a token: what is said is what the ids show."""
    path = tmp_path / "a.txt"
    eos = toy.tokenizer.token_text(toy.tokenizer.eos_id)
    assert toy.tokenizer.special_texts >= {"<bos>", eos}
    path.write_text(f" {eos} ".join(prose(20, i) for i in range(6)))
    contexts = load_contexts(spec(text=str(path), contexts=99), toy)
    note = contexts.notes[0]
    assert note.startswith(
        f"a.txt has special tokens of this model written out: {eos!r} (5). They are tokens of their own"
    )
    assert contexts.notes[0].endswith("; to keep documents apart, give them as records of a .jsonl.")
    assert int((contexts.token_ids == toy.tokenizer.eos_id).sum()) == 5
    lines = tmp_path / "a.jsonl"
    lines.write_text(json.dumps({"text": f"{eos} ".join([prose(20)] * 2)}) + "\n")
    assert load_contexts(spec(text=str(lines), contexts=1), toy).notes[0].endswith("contexts go on across them.")
    path.write_text(" <bos> ".join(prose(20, i) for i in range(6)))
    contexts = load_contexts(spec(text=str(path), contexts=99), toy)
    assert contexts.notes[0].startswith(
        "a.txt has special tokens of this model written out: '<bos>' (5). They are spelled in ordinary tokens"
    )
    assert not (contexts.token_ids[:, 1:] == toy.bos_id).any()


def test_line_ends_and_marks_of_windows_are_text_and_nothing(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"one line\r\n" * 60)
    ids = load_contexts(spec(text=str(path), contexts=1), toy).token_ids
    windows = toy.encode("one line\r\n" * 60)[1:]
    assert ids[0, 1:].tolist() in [windows[i : i + 15] for i in range(0, len(windows), 15)]


def test_a_group_of_huge_records_is_cut_before_it_is_held(toy: LanguageModel, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    text = prose(400_000)
    path.write_text("".join(json.dumps({"text": f"{i} " + text}) + "\n" for i in range(4)))
    contexts = load_contexts(spec(text=str(path), contexts=4), toy)
    assert sorted(contexts.token_ids.tolist()) == sorted(toy.encode(f"{i} " + text[:500])[:16] for i in range(4))

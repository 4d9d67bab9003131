"""BOS once, no token lost, and each token's text as it stands in the text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.errors import DataError
from inspector.sources.tokenizer import Tokenizer
from tests.toy import BOS_ID, EOS_ID, toy_tokenizer


def byte_level(**special: str) -> Tokenizer:
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast
    return Tokenizer(fast(tokenizer_object=toy_tokenizer(), **special))


def sentence_piece() -> Tokenizer:
    """A tokenizer as Llama's: a space in front of the text, spaces as U+2581, unknown characters as bytes."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "<s>", "</s>", "▁", "a", "t", "<", "s", ">", "▁a", "▁t"]
    vocab = {token: i for i, token in enumerate([*letters, *(f"<0x{byte:02X}>" for byte in range(256))])}
    backend = Backend(models.BPE(vocab, [("▁", "a"), ("▁", "t")], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast: Any = PreTrainedTokenizerFast
    return Tokenizer(fast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"))


GEMMA_LIKE = byte_level(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


@pytest.mark.parametrize(
    "text", ["", "a token", "<bos>a token", "<bos><bos>a token", "a <bos> token", "a token<bos>", "<bos>", " <bos>"]
)
def test_bos_stands_once_and_in_front_whatever_the_text_holds(text: str) -> None:
    ids = GEMMA_LIKE.encode(text)
    assert ids[0] == BOS_ID
    assert ids.count(BOS_ID) == 1


def test_a_bos_in_front_is_the_bos_and_one_within_is_text() -> None:
    assert GEMMA_LIKE.encode("<bos>a token") == GEMMA_LIKE.encode("a token")
    within = GEMMA_LIKE.encode("a <bos> token")
    assert "".join(GEMMA_LIKE.token_texts(within[1:])) == "a <bos> token"


def test_other_special_tokens_keep_their_meaning() -> None:
    assert EOS_ID in GEMMA_LIKE.encode("a token<eos>")
    assert GEMMA_LIKE.special_ids == {0, 1, 2}


def test_a_model_without_bos_gets_none() -> None:
    plain = byte_level(eos_token="<eos>")
    assert plain.bos_id is None
    assert plain.token_texts(plain.encode("a t")) == ["a", " t"]


@given(st.text())
def test_tokens_of_a_batch_are_those_of_each_text(text: str) -> None:
    first, second = GEMMA_LIKE.encode_batch([text, "other"])
    assert first == GEMMA_LIKE.encode(text)
    assert second == GEMMA_LIKE.encode("other")


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_token_texts_put_together_are_the_text(text: str) -> None:
    ids = GEMMA_LIKE.encode(text)
    shown = "".join(GEMMA_LIKE.token_texts(ids[1:]))
    assert shown == text.removeprefix("<bos>") or "<" in text


def test_leading_spaces_survive_where_the_decoder_strips_them() -> None:
    tokenizer = sentence_piece()
    ids = tokenizer.encode("a t <s>")
    assert tokenizer.token_texts(ids) == ["<s>", " a", " t", " ", "<", "s", ">"]


def test_half_characters_and_special_tokens_have_a_text() -> None:
    for tokenizer in (GEMMA_LIKE, sentence_piece()):
        ids = tokenizer.encode("日\n")
        texts = tokenizer.token_texts(ids)
        assert texts[0] in ("<bos>", "<s>")
        assert texts[-4:] == ["\ufffd", "\ufffd", "\ufffd", "\n"]


def test_a_character_of_several_tokens_stands_whole_on_the_first_of_them() -> None:
    for tokenizer in (GEMMA_LIKE, sentence_piece()):
        ids = tokenizer.encode("日本\n😀a")
        texts = tokenizer.spelled(ids)
        assert len(texts) == len(ids)
        for character, n_bytes in (("日", 3), ("本", 3), ("😀", 4)):
            at = texts.index(character)
            assert texts[at : at + n_bytes] == [character] + [""] * (n_bytes - 1)


def test_a_token_that_ends_one_character_and_begins_the_next_has_the_next() -> None:
    """As merges of byte-level tokenizers cut: 日 is E6 97 A5, 本 is E6 9C AC."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    bytes_of = [backend.encode(text).tokens for text in (" 日", "本", "é")]
    flat = [byte for text in bytes_of for byte in text]
    merged = ["".join(flat[:2]), "".join(flat[2:5]), flat[5], "".join(flat[6:8]), flat[8]]
    vocab = {token: i for i, token in enumerate([*alphabet, *(token for token in merged if len(token) > 1)])}
    whole = Backend(models.BPE(vocab, []))
    whole.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    tokenizer = Tokenizer(fast(tokenizer_object=whole))
    ids = [vocab[token] for token in merged]
    assert tokenizer.spelled(ids) == [" 日", "本", "", "é", ""]
    assert "日" not in "".join(tokenizer.spelled(ids[1:])), "half of it is not it"


@given(st.text(alphabet="aé日😀 \n<\ufffd\u0301"), st.integers(0, 60))
def test_spelled_texts_put_together_are_the_text_of_any_cut(text: str, cut: int) -> None:
    ids = GEMMA_LIKE.encode(text)[1:][cut:]
    spelled = GEMMA_LIKE.spelled(ids)
    assert len(spelled) == len(ids)
    if cut == 0 and "\ufffd" not in text:
        assert "".join(spelled) == text
    # A cut may leave bytes of no character, each of which is a token here and a sign of its own.
    assert "".join(spelled).replace("\ufffd", "") == GEMMA_LIKE.text(ids).replace("\ufffd", "")


def test_lengths_beyond_the_models_limit_are_not_cut_here() -> None:
    assert len(GEMMA_LIKE.encode("x" * 5000)) == 5001


@given(st.text(alphabet="aé日😀 \n<"))
def test_the_text_of_tokens_together_has_whole_letters(text: str) -> None:
    assert GEMMA_LIKE.text(GEMMA_LIKE.encode(text)[1:]) == text
    tokenizer = sentence_piece()
    assert tokenizer.text(tokenizer.encode(" a t")[1:]).endswith(" a t")
    assert tokenizer.text([]) == ""


def test_a_regex_that_explodes_is_one_error_at_that_text_and_no_other() -> None:
    """The library panics in Rust, with an exception that is no `Exception`."""
    from tokenizers import Regex, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = toy_tokenizer()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"(x+x+)+y"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    fast: Any = PreTrainedTokenizerFast
    tokenizer = Tokenizer(fast(tokenizer_object=backend, bos_token="<bos>"))
    with pytest.raises(DataError, match=r"gave up on a text of 60 characters .*Shorten or change the text"):
        tokenizer.encode("x" * 60)
    assert tokenizer.text(tokenizer.encode("a token")[1:]) == "a token"

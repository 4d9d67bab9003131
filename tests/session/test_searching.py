"""Text search over contexts, across token boundaries."""

import time

from hypothesis import given
from hypothesis import strategies as st

from inspector.session.protocol import Find, Hit
from inspector.session.searching import TextIndex

TEXTS = ["def", " dark", " mat", "ter", "İ", "", "aa", "DARK", "ß", "\n"]


def index(*contexts: list[int]) -> TextIndex:
    return TextIndex(contexts, lambda token: TEXTS[token])


def places(found_in: TextIndex, text: str, **options: object) -> list[tuple[int, int]]:
    return [(hit.context, hit.position) for hit in found_in.find(Find(text=text, **options)).hits]  # type: ignore[arg-type]


def test_a_match_across_tokens_is_found_where_it_begins() -> None:
    made = index([0, 1, 2, 3], [1, 2, 3, 3])
    assert places(made, "dark matter") == [(0, 1), (1, 0)]
    assert places(made, "ef da") == [(0, 0)]
    assert places(made, "nowhere") == []
    assert places(made, "") == []


def test_case_is_ignored_unless_asked_for() -> None:
    made = index([7, 1])
    assert places(made, "dark") == [(0, 0), (0, 1)]
    assert places(made, "dark", case_sensitive=True) == [(0, 1)]
    assert places(made, "DARK", case_sensitive=True) == [(0, 0)]


def test_a_letter_that_grows_when_lowered_shifts_nothing() -> None:
    assert len("İ".lower()) == 2
    assert places(index([4, 4, 4, 0]), "def") == [(0, 3)]


def test_tokens_without_text_are_never_the_place() -> None:
    assert places(index([5, 5, 0, 5]), "def") == [(0, 2)]
    assert places(index([0, 5, 1]), "dark") == [(0, 2)]


def test_two_matches_in_one_token_count_once_and_overlapping_ones_in_two_tokens_twice() -> None:
    assert places(index([6]), "a") == [(0, 0)]
    assert places(index([6, 6]), "aa") == [(0, 0), (0, 1)]


def test_the_limit_is_kept_and_said() -> None:
    made = index([0, 0, 0], [0])
    found = made.find(Find(request=5, text="def", limit=3))
    assert (found.request, len(found.hits), found.truncated) == (5, 3, True)
    found = made.find(Find(text="def", limit=4))
    assert (len(found.hits), found.truncated) == (4, False)


@given(
    st.lists(st.lists(st.integers(0, len(TEXTS) - 1), max_size=12), max_size=4),
    st.text("def arkmt\n", min_size=1, max_size=4),
)
def test_it_finds_what_looking_at_every_character_finds(contexts: list[list[int]], needle: str) -> None:
    expected = []
    for context, ids in enumerate(contexts):
        owners = [position for position, token in enumerate(ids) for _ in TEXTS[token]]
        text = "".join(TEXTS[token] for token in ids)
        begins = [owners[at] for at in range(len(text)) if text.startswith(needle, at)]
        expected += [Hit(context=context, position=position) for position in sorted(set(begins))]
    assert index(*contexts).find(Find(text=needle, case_sensitive=True)).hits == expected


def test_the_whole_corpus_is_searched_at_once() -> None:
    made = index(*[[1, 2, 3, 0] * 256] * 300)
    made.find(Find(text="x"))
    began = time.thread_time()  # of this thread alone, whatever else the machine does
    assert made.find(Find(text="terdef dark", limit=10)).truncated
    # 300 x 1024 tokens: 1.2 million characters; 10 ms when nothing else runs. Slow by a factor of 50 is a mistake.
    assert time.thread_time() - began < 0.5

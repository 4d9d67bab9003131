"""The page: whole without anything beside it, nothing in it active, every result and claim there, well-formed."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from inspector.claims import CLAIMS
from inspector.reports.page import page, text_of
from inspector.store.results import Stored, load, save
from tests.store.objects import HOSTILE, result

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Balanced(HTMLParser):
    """Notes every tag and attribute, and that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.note(attrs)

    def note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "xlink:href", "action"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[Stored]:
    folder = tmp_path_factory.mktemp("store")
    norm = result("norm-prediction", controls={"gaussian_null": {"definition": HOSTILE, "r2_norm": {"a": 0.1}}})
    for row in norm["saes"]:
        row["r2_norm"], row["fvu"] = row.pop("r2_pooled"), row.pop("r2_mean_dims")
    norm["result"] = {"paper_range": [0.7, 0.95]}
    return [
        load(save(each, f"dm-inspect run --model '{HOSTILE}'", folder=folder).id, folder=folder)
        for each in (result(), norm)
    ]


@pytest.fixture(scope="module")
def text(stored: list[Stored]) -> str:
    return page(stored)


@pytest.fixture(scope="module")
def parsed(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    parser.close()
    return parser


def test_it_is_well_formed_and_loads_nothing(text: str, parsed: Balanced) -> None:
    assert parsed.open == []
    assert not parsed.tags & {"script", "iframe", "object", "embed", "img", "link", "form", "base", "b"}
    assert parsed.handlers == []
    assert all(link.startswith("#") for link in parsed.links)
    assert "default-src 'none'" in text
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


def test_every_inner_link_and_id_is_one_of_a_kind(parsed: Balanced) -> None:
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links} <= set(parsed.ids)


def test_nothing_hostile_gets_through(text: str) -> None:
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "</script>" not in text
    assert text_of(HOSTILE) in text


def test_it_has_every_claim_result_control_and_number(text: str, stored: list[Stored]) -> None:
    for claim in CLAIMS:
        assert f"<td>{claim.id}</td><td>{text_of(claim.claim)}</td>" in text
    for each in stored:
        assert f'<section id="{each.record.id}">' in text
        assert text_of(each.record.command) in text
        assert text_of(each.result["definition"]) in text
    assert "The paper: range: 0.7, 0.95" in text
    assert text.count("<svg") == 2 + 3  # a curve and a grid; two curves and a grid
    assert "<td>torch</td><td>2.13.0</td>" in text
    assert '<td class=n>0.300 <span class="quiet">[0.250, 0.350]</span></td>' in text
    assert "undefined" in text


def test_the_same_results_give_the_same_page(stored: list[Stored], text: str) -> None:
    assert page(stored) == text


def test_a_result_of_another_version_is_said_and_the_others_are_drawn(stored: list[Stored]) -> None:
    old = Stored(record=stored[0].record, result={**stored[0].result, "saes": [{"sae": "a"}]})
    text = page([old, stored[1]])
    assert "This result of error-vector, written by dm-inspect 0.1.0, lacks what its figures need (KeyError" in text
    assert text.count("<svg") == 2


def test_a_text_is_escaped_and_visible(tmp_path: Path) -> None:
    assert text_of("<a href='x'>\x00&\n") == "&lt;a href=&#x27;x&#x27;&gt;␀&amp;⏎"
    assert text_of("") == ""

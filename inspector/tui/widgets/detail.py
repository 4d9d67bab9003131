"""The side pane: everything known about the token under the cursor.

The norms come from the scores at hand and follow the cursor at once; latents and guesses are asked for and arrive
later. Bars: the length is the norm of sae_error on one scale per text; the split is by share of squared norms, since
norms of parts do not add up (`|a + b| <= |a| + |b|`): on one token the parts are not orthogonal, and the cosine between
them is what squares lack to the square of the total. The two parts differ in glyph as well as in hue.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.drawing.glossary import does
from inspector.drawing.safe_text import CONTINUED, continues, visible
from inspector.drawing.tokens import OUTLIER
from inspector.tui.lines import Line, Piece, cut, left, number, width_of
from inspector.tui.widgets.line_pane import LinePane
from inspector.tui.widgets.session_panes import width_does

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.session.cards import Guess
    from inspector.session.protocol import TokenDetail
    from inspector.tui.documents import ScoredText
    from inspector.tui.selection import SaeChoice

LINEAR_GLYPH, NONLINEAR_GLYPH, WHOLE_GLYPH = "▓", "█", "▒"
"""Parts of a bar: linear error, nonlinear error, and the whole while there is no linear map."""
SPLITS = {"t": "train", "h": "held out", "x": "excluded", "o": "outlier"}
MANY_TIMES = 2.0
"""From so many times the median norm on it is said how many."""
GUESS_COLUMNS = (
    ("model", "model"),
    ("Sae", "Sae"),
    ("Sae + linear", "+linear"),
    ("Sae + nonlinear", "+nonlin"),
)
"""Keys of TokenDetail.guesses, and their headings: the last two are added to the SAE's output."""
NOTES = (
    "Bars: length is the total, split by squared norms.",
    "Parts are not orthogonal on one token:",
    "total² = linear² + nonlin² + 2·cos·linear·nonlin.",
)
"""Under the bars, as far as there is room."""
SHORT_NOTE = "Bars split by squared norms."
"""Where the first of them is too long."""
N_GUESSES = 3
LINK = "⇗"
"""After a latent about which a page is known; terminals that know OSC 8 open it on a click."""
ROOM_FOR_GUESSES = 8
"""Lines that title, guesses and what separates them take; what a window lacks, notes and latents give up first."""
TWO_COLUMNS = 78
"""From this width on, a low pane puts latents and guesses beside the norms."""


@dataclass(frozen=True, kw_only=True)
class TokenFacts:
    """The token under the cursor as the pane needs it."""

    text: ScoredText
    position: int
    choice: SaeChoice
    scale: float
    """Norm of sae_error at which a bar is full; NaN: unknown."""
    median_norm: float | None = None
    """Of ordinary tokens' x at the hook; None: not known."""


class DetailPane(LinePane, can_focus=True):
    """Takes facts and, later, the session's details."""

    DEFAULT_CSS = """
    DetailPane { width: 54; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._facts: TokenFacts | None = None
        self._detail: TokenDetail | None = None
        self._problem = ""

    def show(self, facts: TokenFacts | None, detail: TokenDetail | None, problem: str = "") -> None:
        """Draw a token.

        Args:
            facts: None: there is no token yet.
            detail: What the session said about it; None: not yet. An outdated one may be given: it is drawn muted.
            problem: Why there will be no detail.
        """
        self._facts, self._detail, self._problem = facts, detail, problem
        self.rebuild()

    def build(self, width: int, height: int) -> Sequence[Line]:
        """Title, norms, latents, guesses; beside each other where the pane is wide and low."""
        facts = self._facts
        if facts is None:
            return [self.title_line([("token", "")], [], width), [(" no token yet", "muted")]]
        title = self.title_line(*title_pieces(facts), width)
        if width >= TWO_COLUMNS and height < 18:
            half = width // 2
            norms = norm_lines(facts, half - 2)
            norms += note_lines(facts, half - 2, height - 1 - len(norms))
            rest = self._rest(width - half - 2, height - 1)
            return [title, *beside(norms, rest, half)]
        inner = width - 2
        body = norm_lines(facts, inner)
        body += [*note_lines(facts, inner, height - ROOM_FOR_GUESSES - len(body)), []]
        body += self._rest(inner, height - 1 - len(body))
        return [title, *([(" ", ""), *line] if line else [] for line in body)]

    def _rest(self, width: int, height: int) -> list[Line]:
        """Guesses at full length, and as many latents as there is room for above them."""
        if self._problem:
            return [[(cut(self._problem, width), "error")]]
        guesses = guess_lines(self._detail, width)
        room = height - len(guesses) - 1
        latents = latent_lines(self._detail, self._facts, width, room)
        return [*latents, [], *guesses] if latents else guesses


def title_pieces(facts: TokenFacts) -> tuple[Line, Line]:
    """The token, and where it is."""
    document, position = facts.text.document, facts.position
    begun = continues(document.tokens, position)
    token = cut(f"'{compact(document.tokens[position if begun is None else begun])}'", 24)
    token += "" if begun is None else f" {CONTINUED}"
    return [(token, "bold")], [(f"position {position} · id {document.token_ids[position]}", "")]


def compact(token: str) -> str:
    """Token text in few columns: safe, and a run of spaces counted instead of shown."""
    return re.sub(" {2,}", lambda run: f"␣×{len(run[0])}", visible(token))


def norm_lines(facts: TokenFacts, width: int) -> list[Line]:
    """A line of facts, headings, one bar and its numbers per enabled width, and what they add up to."""
    document, position = facts.text.document, facts.position
    has_map = facts.text.has_map
    lines: list[Line] = [
        [
            ("loss ", "muted"),
            (left(number(document.loss[position]), 5), "strong"),
            (" ‖x‖ ", "muted"),
            (left(number(document.x_norm[position]), 5), ""),
            (f" {SPLITS.get(document.split[position], '')}", "muted"),
        ]
    ]
    if facts.median_norm and document.x_norm[position] >= MANY_TIMES * facts.median_norm:
        look = "warning" if document.split[position] == OUTLIER else "muted"
        lines.append([(f"{number(document.x_norm[position] / facts.median_norm, 2)} x the median norm", look)])
    roomy = width >= 46
    linear_room, nonlinear_room, cosine_room = (8, 9, 6) if roomy else (7, 7, 0)
    room = max(4, width - 7 - 7 - 1 - linear_room - nonlinear_room - cosine_room - 4)
    heading: Line = [(left("", 7), ""), ("  total", "muted")]
    if has_map:
        names = (" linear", " nonlin") if roomy else (" lin", " nonl")
        parts = (
            (room + 1 + linear_room, LINEAR_GLYPH, names[0], "linear"),
            (nonlinear_room, NONLINEAR_GLYPH, names[1], "nonlinear"),
        )
        for size, glyph, name, look in parts:
            heading += [(" " * (size - 1 - len(name)), ""), (glyph, look), (name, "muted")]
        heading.append((f"{'cos' if cosine_room else '':>{cosine_room}}  L0", "muted"))
    else:
        heading.append((" " * (room + 1) + " no linear map yet", "muted"))
    lines += [[], heading]
    for index, row in facts.choice.shown:
        scalars = document.scalars(position, row)
        active = index == facts.choice.active
        label = f"{'◉' if active else '●'} {facts.choice.labels[index]}"
        look = f"series-{facts.choice.series(index)}{' bold' if active else ''}"
        line: Line = [(left(label, 7), f"{look} {width_does(index, facts.choice.labels[index])}")]
        line.append((f"{number(scalars.sae_error_norm):>7}", "strong" if active else ""))
        line.append((" ", ""))
        line += bar(scalars.sae_error_norm, scalars.linear_error_norm, scalars.nonlinear_error_norm, facts.scale, room)
        if has_map:
            cosine = f"{scalars.cosine:+.2f}".replace("+nan", "-") if roomy else ""
            line.append((f"{number(scalars.linear_error_norm):>{linear_room}}", "linear"))
            line.append((f"{number(scalars.nonlinear_error_norm):>{nonlinear_room}}", "nonlinear"))
            line.append((f"{cosine:>{cosine_room}}{number(scalars.l0, 1):>4}", "muted"))
        lines.append(line)
    return lines


def note_lines(facts: TokenFacts, width: int, room: int) -> list[Line]:
    """What the bars are and why norms of parts do not add up; as many of the sentences as there is room for."""
    shown = NOTES if room >= len(NOTES) else NOTES[:1] if room >= 1 else ()
    if width < width_of([(NOTES[0], "")]):
        shown = (SHORT_NOTE,) if shown else ()
    return [[(cut(note, width), "muted")] for note in shown] if facts.text.has_map else []


def bar(total: float, linear: float, nonlinear: float, scale: float, room: int) -> list[Piece]:
    """A bar of at most `room` columns, padded to it; '›' at its end: longer than the scale.

    Its length is total / scale, its linear part the share of linear in the sum of the squared norms.
    """
    if total != total or not scale > 0:
        return [(left("-", room), "muted")]
    over = total > scale
    length = room if over else round(room * total / scale)
    whole = linear * linear + nonlinear * nonlinear
    if whole != whole or whole <= 0:
        pieces = [(WHOLE_GLYPH * length, "muted")]
    else:
        n_linear = round(length * linear * linear / whole)
        pieces = [(LINEAR_GLYPH * n_linear, "linear"), (NONLINEAR_GLYPH * (length - n_linear), "nonlinear")]
    if over:
        text, look = pieces[-1]
        pieces[-1] = (text[:-1] + "›" if text else "", look)
        if not text:
            pieces[0] = (pieces[0][0][:-1] + "›", pieces[0][1])
    pieces.append((" " * (room - length), ""))
    return [piece for piece in pieces if piece[0]]


def latent_lines(detail: TokenDetail | None, facts: TokenFacts | None, width: int, room: int) -> list[Line]:
    """A heading and the active latents, strongest first, in columns; the last line says how many are not shown."""
    if facts is None or room < 2:
        return []
    label = f"latents of {facts.choice.labels[facts.choice.active]}"
    nominal = facts.choice.sae.nominal_l0
    if nominal is not None:
        label += f", L0 {nominal:g}"
    if detail is None:
        return [[(label, "muted")], [("…", "muted")]]
    heading: Line = [(label, "muted"), (f" · {detail.n_active} active", "")]
    if not detail.latents:
        return [heading, [("none is active", "muted")]]
    cells = [
        (f"{latent.index}", f"+{number(latent.activation, 2)}{LINK if latent.link else ''}", latent.link)
        for latent in detail.latents
    ]
    index_width = max(len(index) for index, _, _ in cells)
    activation_width = max(len(activation) for _, activation, _ in cells)
    column = index_width + 1 + activation_width + 2
    per_line = max(1, (width + 2) // column)
    n_lines = min(room - 1, -(-len(cells) // per_line))
    shown = cells[: n_lines * per_line]
    if len(shown) < detail.n_active:
        heading.append((f", strongest {len(shown)}", "muted"))
    lines: list[Line] = [heading]
    for start in range(0, len(shown), per_line):
        line: Line = []
        for place, (index, activation, link) in enumerate(shown[start : start + per_line], start):
            look = does(f"screen.latent({place})", "What makes this latent active")
            look += f" link={link}" if link.isascii() and link.isprintable() and " " not in link and link else ""
            # One colour: a change of it between any two would cost 40 bytes per latent at every step of the cursor.
            line += [(f"{index:>{index_width}} {activation}", look)]
            line.append((" " * (activation_width - len(activation) + 2), ""))
        lines.append(line)
    return lines


def guess_lines(detail: TokenDetail | None, width: int) -> list[Line]:
    """Headings, and the three likeliest next tokens of the model and of each splice, side by side."""
    column = max(9, width // len(GUESS_COLUMNS))
    n_columns = min(len(GUESS_COLUMNS), max(1, width // column))
    heads = GUESS_COLUMNS[:n_columns]
    lines: list[Line] = [
        [("next token, with the SAE's output spliced in", "muted")] if width >= 46 else [("next token", "muted")]
    ]
    lines.append([(left(title, column), "strong" if key == "model" else "") for key, title in heads])
    if detail is None:
        return [*lines, [("…", "muted")], [], []]
    likeliest = detail.guesses.get("model", [])
    first = likeliest[0].token if likeliest else None
    for rank in range(N_GUESSES):
        line: Line = []
        for key, _ in heads:
            guesses = detail.guesses.get(key, [])
            line += _guess(guesses[rank] if rank < len(guesses) else None, column, first)
        lines.append(line)
    return lines


def _guess(guess: Guess | None, column: int, first: str | None) -> list[Piece]:
    """One guess in its column; the model's own first guess is marked wherever it stands."""
    if guess is None:
        return [(" " * column, "")]
    probability = f"{guess.probability:.2f}".removeprefix("0") if guess.probability < 0.995 else "1.0"
    word = left(compact(guess.token), column - 5)
    return [(word, "strong" if guess.token == first else ""), (f" {probability} ", "muted")]


def beside(start: Sequence[Line], end: Sequence[Line], column: int) -> list[Line]:
    """Two blocks of lines next to each other, the second from `column` on; a space before each."""
    lines: list[Line] = []
    for index in range(max(len(start), len(end))):
        first = list(start[index]) if index < len(start) else []
        second = list(end[index]) if index < len(end) else []
        room = max(0, column - 1 - width_of(first))
        lines.append([(" ", ""), *first, (" " * room, ""), *second])
    return lines

"""What is selected to be looked at, and how each key changes it: SAEs, the cursor's place, a search.

Pure: no screen, no session, no clock. Everything here is frozen; a key press makes a new value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from inspector.drawing.palette import place_in_run
from inspector.options import width_label

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.session.protocol import Hit
    from inspector.spec import SaeRef

Source = Literal["context", "prompt", "generated"]


@dataclass(frozen=True, kw_only=True)
class SaeChoice:
    """Which SAEs are shown: one per width, some widths enabled, one of them active (it colours the tokens)."""

    saes: tuple[SaeRef, ...]
    """As in Ready.saes; an index into it is a row."""
    rows: tuple[tuple[int, ...], ...]
    """Per width, narrowest first: the rows of its SAEs, by nominal L0, unknown last."""
    picked: tuple[int, ...]
    """Per width: the row shown."""
    enabled: frozenset[int]
    """Indices of the widths drawn; never empty."""
    active: int
    """Index of the width that colours the tokens; always enabled."""

    @classmethod
    def of(cls, saes: Sequence[SaeRef]) -> SaeChoice:
        """The choice a session starts with: narrowest, middle and widest, the middle L0, the middle width active.

        Raises:
            ValueError: `saes` is empty.
        """
        if not saes:
            raise ValueError("saes is empty; a session always has one.")
        by_width: dict[int, list[int]] = {}
        for row, sae in enumerate(saes):
            by_width.setdefault(sae.d_sae, []).append(row)
        rows = tuple(tuple(sorted(by_width[width], key=lambda r: _l0_key(saes[r]))) for width in sorted(by_width))
        active = len(rows) // 2
        start = rows[active][len(rows[active]) // 2]
        choice = cls(
            saes=tuple(saes),
            rows=rows,
            picked=tuple(group[0] for group in rows),
            enabled=frozenset({0, active, len(rows) - 1}),
            active=active,
        )
        return choice.pick(start)

    @property
    def widths(self) -> tuple[int, ...]:
        """d_sae of each width, narrowest first."""
        return tuple(self.saes[group[0]].d_sae for group in self.rows)

    @property
    def labels(self) -> tuple[str, ...]:
        """Short name of each width: 256, 1k, 16k."""
        return tuple(width_label(width) for width in self.widths)

    @property
    def row(self) -> int:
        """Row of the active SAE."""
        return self.picked[self.active]

    @property
    def sae(self) -> SaeRef:
        """The active SAE."""
        return self.saes[self.row]

    @property
    def shown(self) -> tuple[tuple[int, int], ...]:
        """(index of the width, row) of every enabled width, narrowest first."""
        return tuple((index, self.picked[index]) for index in sorted(self.enabled))

    def series(self, index: int) -> int:
        """Number, 0 to 8, of a width's colour: the colours run from the narrowest to the widest, however many there
        are.
        """
        return place_in_run(index, len(self.rows))

    def press(self, index: int) -> SaeChoice:
        """A number key: enable and activate a width; pressed on the active one, disable it.

        The nearest enabled width then becomes active (the narrower of two equally near); the last one stays.
        An index that is no width changes nothing.
        """
        if not 0 <= index < len(self.rows):
            return self
        if index != self.active:
            return replace(self, enabled=self.enabled | {index}, active=index)
        rest = self.enabled - {index}
        if not rest:
            return self
        return replace(self, enabled=rest, active=min(rest, key=lambda other: (abs(other - index), other)))

    def pick(self, row: int) -> SaeChoice:
        """Show this SAE for its width, and for every other width the SAE of the nearest nominal L0."""
        wanted = self.saes[row].nominal_l0
        picked = []
        for group, now in zip(self.rows, self.picked, strict=True):
            if row in group:
                picked.append(row)
            elif wanted is None:
                picked.append(now)
            else:
                picked.append(min(group, key=lambda r: _l0_gap(self.saes[r], wanted)))
        return replace(self, picked=tuple(picked))

    def go_to(self, row: int) -> SaeChoice:
        """Colour by this SAE; every other width takes its nearest L0."""
        width = next(index for index, group in enumerate(self.rows) if row in group)
        return (self if width == self.active else self.press(width)).pick(row)

    def step_l0(self, step: int) -> SaeChoice:
        """The next denser (+1) or sparser (-1) SAE of the active width; at either end nothing changes."""
        group = self.rows[self.active]
        place = group.index(self.row) + step
        return self.pick(group[place]) if 0 <= place < len(group) else self

    def restored(self, sae_ids: Sequence[str], enabled: Sequence[int], active: int) -> SaeChoice:
        """As it was saved, as far as these SAEs and widths are still there.

        Args:
            sae_ids: that were shown, one per width.
            enabled: d_sae of the widths that were drawn.
            active: d_sae of the width that coloured the tokens.
        """
        wanted = set(sae_ids)
        picked = tuple(
            next((row for row in group if self.saes[row].sae_id in wanted), now)
            for group, now in zip(self.rows, self.picked, strict=True)
        )
        place = {width: index for index, width in enumerate(self.widths)}
        drawn = frozenset(place[width] for width in enabled if width in place) or self.enabled
        chosen = place.get(active, self.active)
        return replace(self, picked=picked, enabled=drawn | {chosen}, active=chosen)


def _l0_key(sae: SaeRef) -> tuple[float, str]:
    return (float("inf") if sae.nominal_l0 is None else sae.nominal_l0, sae.sae_id)


def _l0_gap(sae: SaeRef, wanted: float) -> tuple[float, float, str]:
    l0, sae_id = _l0_key(sae)
    return (abs(l0 - wanted), l0, sae_id)


@dataclass(frozen=True, kw_only=True)
class CursorPlace:
    """Where the cursor is."""

    source: Source = "context"
    context: int = 0
    position: int = 0


@dataclass(frozen=True, kw_only=True)
class Search:
    """A text, and where it was found."""

    text: str
    hits: tuple[Hit, ...] = ()
    truncated: bool = False
    """More places than were asked for."""
    index: int = -1
    """Which hit the cursor was sent to; -1: none yet."""

    @property
    def hit(self) -> Hit | None:
        """The hit the cursor was sent to."""
        return self.hits[self.index] if 0 <= self.index < len(self.hits) else None

    def walk(self, step: int, place: CursorPlace) -> Search:
        """The next hit (+1) or the previous (-1), round and round; the first time, the first at or after `place`."""
        if not self.hits:
            return self
        if self.index < 0:
            here = (place.context, place.position)
            after = [i for i, hit in enumerate(self.hits) if (hit.context, hit.position) >= here]
            first = after[0] if after else 0
            return replace(self, index=first if step > 0 else (first - 1) % len(self.hits))
        return replace(self, index=(self.index + step) % len(self.hits))

    def summary(self) -> str:
        """'3/17', '3/500+' or 'not found'."""
        if not self.hits:
            return "not found"
        return f"{self.index + 1}/{len(self.hits)}{'+' if self.truncated else ''}"


def walk_worst(ranked: Sequence[int], position: int, step: int) -> tuple[int, int | None]:
    """Where `n` (+1) or `N` (-1) leads from here: (contexts to move by, position there).

    From a token that is not among the ranked ones, +1 goes to the worst. Past either end it leads to the neighbouring
    context, whose position is None: its ranking decides (its worst going on, its last ranked going back).
    """
    if position not in ranked:
        return (0, ranked[0]) if ranked and step > 0 else (step, None)
    place = list(ranked).index(position) + step
    return (0, ranked[place]) if 0 <= place < len(ranked) else (step, None)


def match_end(tokens: Sequence[str], position: int, text: str) -> int:
    """One past the last token of a match that begins in the token at `position`, not counting case."""
    needle, joined = text.casefold(), ""
    for index in range(position, len(tokens)):
        joined += tokens[index]
        if needle in joined.casefold():
            rest = (after for after in range(index + 1, len(tokens)) if tokens[after])
            return next(rest, len(tokens))  # with the tokens that go on with its last character
        if len(joined) > len(text) + len(tokens[position]):
            break
    return position + 1

"""The two lines at the top: what is looked at, and how good the linear map behind the colours is.

On a narrow screen parts are shortened or left out, the least important first; a number is shown whole or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inspector.drawing.safe_text import visible
from inspector.tui.lines import Line, Part, fit, number, width_of
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from inspector.session.protocol import Ready
    from inspector.tui.selection import CursorPlace, SaeChoice
    from inspector.tui.session import SessionView

SEPARATOR = " · "


def site_name(hook_name: str) -> str:
    """The last word of a hook: resid_post, mlp_out, attn.hook_z; the whole of an unusual one."""
    parts = hook_name.split(".")
    if parts[0] == "blocks" and len(parts) > 2:
        parts = parts[2:]
    return ".".join(parts).replace("hook_", "", 1) if len(parts) == 1 else ".".join(parts)


def short_name(model: str) -> str:
    """The model's name; of a directory its last part."""
    return visible(Path(model).name or model if model.startswith(("/", ".", "~")) else model)


def positions_text(positions: tuple[int, int], context_length: int) -> str:
    """'positions ≥ 32', or both ends if the end is not the context's."""
    start, stop = positions
    return f"positions ≥ {start}" if stop >= context_length else f"positions {start}-{stop - 1}"


def width_parts(choice: SaeChoice) -> tuple[Line, ...]:
    """The widths with their keys, from long to short: '1 256●' enabled, '2 512○' not, the active one marked '◉'."""
    long: Line = [("widths ", "muted")]
    middle: Line = []
    short: Line = []
    for index, label in enumerate(choice.labels):
        active, enabled = index == choice.active, index in choice.enabled
        mark = "◉" if active else "●" if enabled else "○"
        look = f"series-{choice.series(index)}{' bold' if active else ''}" if enabled else "muted"
        key = str(index + 1) if index < 9 else "·"
        gap = [] if index == 0 else [("  ", "")]
        long += [*gap, (f"{key} ", "key" if index < 9 else "muted"), (f"{label}{mark}", look)]
        gap = [] if index == 0 else [(" ", "")]
        short += [*gap, (f"{key}{mark}", look)]
        middle += [*gap, (f"{key} {label}{mark}" if enabled else f"{key}{mark}", look)]
    only: Line = [(f"{choice.labels[choice.active]}◉", f"series-{choice.series(choice.active)} bold")]
    return long, middle, short, only, []


def first_line(session: SessionView, model: str, choice: SaeChoice | None, width: int) -> Line:
    """Program, model, layer and site; the widths and the L0."""
    ready = session.ready
    name: tuple[Line, ...] = ([("dm-inspect", "accent")], [])
    left: list[Part] = [Part(variants=name, weight=1)]
    if ready is None:
        left.append(Part(variants=([(short_name(model), "strong")],), weight=9))
        return _joined(fit(left, width), "  ")
    where: list[Line] = [[(short_name(ready.model), "strong")]]
    layer = "" if ready.layer is None else f"{SEPARATOR}layer {ready.layer}"
    site = f"{SEPARATOR}{site_name(ready.hook_name)}"
    variants = (
        [*where[0], (layer, ""), (site, "muted")],
        [*where[0], (layer, "")],
        [*where[0], (layer.replace("layer ", "L"), "")],
    )
    left.append(Part(variants=variants, weight=3))
    right: list[Part] = []
    if choice is not None:
        right = [Part(variants=width_parts(choice), weight=2), Part(variants=_l0(session, choice), weight=4)]
    lines = fit([*left, *right], width)
    n_right = sum(1 for part in fit_tail(lines, right) if part)
    return _two_ends(lines[: len(lines) - n_right], lines[len(lines) - n_right :], width, "  ")


def fit_tail(lines: Sequence[Line], parts: Sequence[Part]) -> list[Line]:
    """Those of the fitted lines that belong to the given parts."""
    return [line for line in lines if any(line is variant for part in parts for variant in part.variants)]


def _l0(session: SessionView, choice: SaeChoice) -> tuple[Line, ...]:
    nominal = choice.sae.nominal_l0
    quality = session.quality(choice.row)
    name = "?" if nominal is None else f"{nominal:g}"
    if quality is None or quality.l0 is None:
        return ([("L0≈", "muted"), (name, "strong")],)
    measured = number(quality.l0, 3)
    return (
        [("L0≈", "muted"), (name, "strong"), (f" ({measured})", "muted")],
        [("L0≈", "muted"), (name, "strong")],
    )


def second_line(
    session: SessionView, choice: SaeChoice | None, place: CursorPlace | None, source_name: str, width: int
) -> Line:
    """How good the map is; which text is shown. A lost session says so here."""
    ready = session.ready
    if session.stage == "lost":
        text = session.error or "The session ended."
        return [(f"{text}  ", "error"), ("r", "key"), (" reconnects", "muted")]
    if ready is None:
        return []
    if session.stage in ("connecting", "loading"):
        step = f"loading {session.steps[-1].what}" if session.steps else "connecting again"
        return [(visible(step), "warning"), ("  what is shown stays until it is there", "muted")]
    parts = [*_policy_parts(session), *_stopped(session), *_map_parts(session, choice)]
    right = _place_parts(ready, place, source_name)
    lines = fit([*parts, *right], width, SEPARATOR)
    n_right = len(fit_tail(lines, right))
    return _two_ends(lines[: len(lines) - n_right], lines[len(lines) - n_right :], width, SEPARATOR)


def _stopped(session: SessionView) -> list[Part]:
    """That the numbers beside it will not get better, and why if there is room."""
    if not session.stopped:
        return []
    whole = visible(session.stopped)
    variants: tuple[Line, ...] = ([("fit stopped: ", "error"), (whole, "error")], [("fit stopped", "error")])
    return [Part(variants=variants, weight=8)]


def _policy_parts(session: SessionView) -> list[Part]:
    """That tokens count which are left out otherwise; nothing as long as all is as usual."""
    if session.policy == "excluded":
        return []
    long: Line = [("special tokens counted", "warning"), (" (in brackets: left out)", "muted")]
    short: Line = [("specials counted", "warning"), (" (left out)", "muted")]
    return [Part(variants=(long, long[:1], short, short[:1]), weight=4)]


def _without(value: float | None, digits: int) -> Line:
    """The same number with the special tokens left out, in brackets."""
    return [(f" ({value:.{digits}f})", "muted")] if value is not None else []


def _map_parts(session: SessionView, choice: SaeChoice | None) -> list[Part]:
    improved = session.improved
    if improved is None or choice is None:
        return [
            Part(
                variants=(
                    [("no linear map yet: showing total error", "warning")],
                    [("no linear map yet", "warning")],
                ),
                weight=9,
            )
        ]
    have, goal = improved.n_tokens, improved.n_tokens_goal
    if improved.finished:
        told: tuple[Line, ...] = (
            [("linear map from ", "muted"), (f"{have:,}", ""), (" tokens", "muted")],
            [("map ", "muted"), (short_count(have), "")],
            [],
        )
    else:
        told = (
            [("linear map from ", "muted"), (f"{have:,}", "warning"), (f" of {goal:,} tokens", "muted")],
            [("map ", "muted"), (f"{short_count(have)}/{short_count(goal)}", "warning")],
        )
    quality = session.quality(choice.row)
    beside = session.quality_beside(choice.row) if session.policy == "included" else None
    parts = [Part(variants=told if beside is None else (*told[:2], []), weight=3 if beside is None else 0)]
    if quality is None:
        return parts
    if quality.r2 is not None:
        r2 = f"{quality.r2:.2f}"
        variants: list[Line] = [[("R² ", "muted"), (r2, "strong")]]
        if quality.r2_low is not None and quality.r2_high is not None:
            interval = f" [{quality.r2_low:.2f}, {quality.r2_high:.2f}]"
            variants.insert(0, [("R² ", "muted"), (r2, "strong"), (interval, "muted")])
            if beside is None:
                variants.insert(0, [("held-out R² ", "muted"), (r2, "strong"), (interval, "muted")])
        if beside is not None:  # the comparison is what was asked for; the interval is not
            variants = [[("R² ", "muted"), (r2, "strong"), *_without(beside.r2, 2)], [("R² ", "muted"), (r2, "strong")]]
        parts.append(Part(variants=tuple(variants), weight=6))
    else:
        parts.append(Part(variants=([("no held-out R² yet", "muted")], []), weight=2))
    if quality.fvu is not None:
        label = choice.labels[choice.active]
        fvu: Line = [(f"{label}: ", "muted"), ("FVU ", "muted"), (f"{quality.fvu:.3f}", "")]
        split = [*fvu]
        if quality.fvu_nonlinear is not None:
            split = [*fvu, (", nonlinear ", "muted"), (f"{quality.fvu_nonlinear:.3f}", "nonlinear")]
        if beside is not None:
            fvu = [*fvu, *_without(beside.fvu, 3)]
            if quality.fvu_nonlinear is not None:
                split = [*fvu, (", nonlinear ", "muted"), (f"{quality.fvu_nonlinear:.3f}", "nonlinear")]
                split += _without(beside.fvu_nonlinear, 3)
        parts.append(Part(variants=(split, fvu, []), weight=2 if beside is None else 5))
    return parts


def _place_parts(ready: Ready, place: CursorPlace | None, source_name: str) -> list[Part]:
    parts: list[Part] = []
    if place is not None and place.source == "context":
        count = f"{place.context + 1}/{ready.n_contexts}"
        parts.append(Part(variants=([("context ", "muted"), (count, "strong")], [(count, "strong")]), weight=5))
    elif place is not None:
        parts.append(Part(variants=([(source_name, "strong")], [(place.source, "strong")]), weight=5))
    parts.append(Part(variants=([(positions_text(ready.positions, ready.context_length), "muted")], []), weight=1))
    return parts


def short_count(count: int) -> str:
    """150000 as 150k, 1234 as 1.2k, 999 as it is."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k".replace(".0k", "k") if count < 100_000 else f"{count // 1000}k"


def _joined(lines: Sequence[Line], separator: str) -> Line:
    out: Line = []
    for index, line in enumerate(lines):
        if index:
            out.append((separator, "muted"))
        out += line
    return out


def _two_ends(start: Sequence[Line], end: Sequence[Line], width: int, separator: str) -> Line:
    first, last = _joined(start, separator), _joined(end, separator)
    room = width - width_of(first) - width_of(last)
    return [*first, (" " * max(room, 1), ""), *last] if last else first


class HeaderPane(LinePane):
    """Two lines; told what to show by the screen."""

    DEFAULT_CSS = """
    HeaderPane { height: 2; dock: top; background: $panel; padding: 0 1; }
    """

    def __init__(self, model: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._model = visible(model)
        self.draw(lambda _width, _height: [[("dm-inspect  ", "accent"), (self._model, "strong")]])

    def show(self, session: SessionView, choice: SaeChoice | None, place: CursorPlace | None, source_name: str) -> None:
        """Draw both lines."""
        self.draw(
            lambda width, _: [
                first_line(session, self._model, choice, width),
                second_line(session, choice, place, source_name, width),
            ]
        )

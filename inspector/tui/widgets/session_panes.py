"""What is known of the session: two lines at the top, and, before there are tokens, what loads or why it failed.

On a narrow screen parts are shortened or left out, the least important first; a number is shown whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen

from inspector.drawing.glossary import about, click, does
from inspector.drawing.safe_text import visible
from inspector.tui.job_lines import bar, duration, percent
from inspector.tui.lines import Line, Part, cut, fit, fit_ends, joined, left, number, part, wrapped
from inspector.tui.widgets.bars import FooterPane, pressed
from inspector.tui.widgets.line_pane import LinePane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual.app import ComposeResult

    from inspector.session.protocol import LoadProgress, Ready
    from inspector.tui.selection import CursorPlace, SaeChoice
    from inspector.tui.session import LoadStep, SessionView

SEPARATOR = " · "
WAYS = (("r", " try again   "), ("s", " suites   "), ("S", " switch   "), ("q", " quit"))
"""On from a load that failed."""


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


def width_does(index: int, label: str) -> str:
    """What a click on a width does, wherever it stands."""
    return does(f"screen.do('press_width', {index})", f"Colour by the SAE with {label} latents; again: leave it out")


def width_parts(choice: SaeChoice) -> tuple[Line, ...]:
    """The widths with their keys, from long to short: '1 256●' enabled, '2 512○' not, the active one marked '◉'."""
    long: Line = []
    names: Line = []
    middle: Line = []
    short: Line = []
    for index, label in enumerate(choice.labels):
        active, enabled = index == choice.active, index in choice.enabled
        mark = "◉" if active else "●" if enabled else "○"
        do = width_does(index, label)
        look = f"series-{choice.series(index)}{' bold' if active else ''} {do}" if enabled else f"muted {do}"
        key = str(index + 1) if index < 9 else "·"
        gap = [] if index == 0 else [("  ", "")]
        long += [*gap, (f"{key} ", f"key {do}" if index < 9 else "muted"), (f"{label}{mark}", look)]
        gap = [] if index == 0 else [(" ", "")]
        short += [*gap, (f"{key}{mark}", look)]
        names += [*gap, (f"{label}{mark}", look)]
        middle += [*gap, (f"{key} {label}{mark}" if enabled else f"{key}{mark}", look)]
    only: Line = [(f"{choice.labels[choice.active]}◉", f"series-{choice.series(choice.active)} bold")]
    return [("widths ", "muted"), *long], long, names, middle, short, only, []


def first_line(session: SessionView, model: str, choice: SaeChoice | None, width: int) -> Line:
    """Program, model, layer and site; the widths and the L0."""
    ready = session.ready
    name = part(1, [("dm-inspect", f"accent {does('app.command_palette', 'All commands, by name')}")], [])
    if ready is None:
        return joined(fit([name, part(9, [(short_name(model), "strong")])], width))
    suites = does("app.open_screen('suites')", "Which SAEs there are, of other layers too")
    short: Line = [(short_name(ready.model), f"strong {suites}")]
    stored: Line = [(f" {visible(ready.quantised)}", "muted")] if ready.quantised else []
    layer = "" if ready.layer is None else f"{SEPARATOR}layer {ready.layer}"
    site = f"{SEPARATOR}{site_name(ready.hook_name)}"
    where = part(
        3,
        [*short, *stored, (layer, suites), (site, f"muted {suites}")],
        [*short, (layer, suites)],
        [*short, (layer.replace("layer ", "L"), suites)],
    )
    right = [part(5, *width_parts(choice)), _l0(session, choice)] if choice is not None else []
    return fit_ends([name, where], right, width)


def _l0(session: SessionView, choice: SaeChoice) -> Part:
    nominal, quality = choice.sae.nominal_l0, session.quality(choice.row)
    what = " ".join((about("l0"), click("screen.do('step_l0', 1)")))
    short: Line = [("L0≈", f"muted {what}"), ("?" if nominal is None else f"{nominal:g}", f"strong {what}")]
    if quality is None or quality.l0 is None:
        return part(4, short)
    return part(4, [*short, (f" ({number(quality.l0, 3)})", f"muted {what}")], short)


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
        step = f"loading {session.steps[-1].told.what}" if session.steps else "connecting again"
        return [(visible(step), "warning"), ("  what is shown stays until it is there", "muted")]
    parts = [*_policy_parts(session), *_stopped(session), *_map_parts(session, choice)]
    return fit_ends(parts, _place_parts(ready, place, source_name), width, SEPARATOR)


def _stopped(session: SessionView) -> list[Part]:
    """That the numbers beside it will not get better, and why if there is room."""
    if not session.stopped:
        return []
    why = visible(session.stopped)
    return [part(8, [("fit stopped: ", "error"), (why, "error")], [("fit stopped", "error")])]


def _policy_parts(session: SessionView) -> list[Part]:
    """That tokens count which are left out otherwise; nothing as long as all is as usual."""
    if session.policy == "excluded":
        return []
    long: Line = [("special tokens counted", "warning"), (" (in brackets: left out)", "muted")]
    short: Line = [("specials counted", "warning"), (" (left out)", "muted")]
    return [part(4, long, long[:1], short, short[:1])]


def _without(value: float | None, digits: int) -> Line:
    """The same number with the special tokens left out, in brackets."""
    return [(f" ({value:.{digits}f})", "muted")] if value is not None else []


def _map_parts(session: SessionView, choice: SaeChoice | None) -> list[Part]:
    improved = session.improved
    if improved is None or choice is None:
        none = "no linear map yet"
        return [part(9, [(f"{none}: showing total error", "warning")], [(none, "warning")])]
    quality = session.quality(choice.row)
    beside = session.quality(choice.row, beside=True) if session.policy == "included" else None
    have, goal, fit_of = improved.n_tokens, improved.n_tokens_goal, about("map")
    told: list[Line]
    if improved.finished:
        told = [[("linear map from ", f"muted {fit_of}"), (f"{have:,}", fit_of), (" tokens", "muted")],
                [("map ", f"muted {fit_of}"), (short_count(have), fit_of)], []]  # fmt: skip
    else:
        told = [[("linear map from ", f"muted {fit_of}"), (f"{have:,}", f"warning {fit_of}"),
                 (f" of {goal:,} tokens", "muted")],
                [("map ", f"muted {fit_of}"), (f"{short_count(have)}/{short_count(goal)}", "warning")]]  # fmt: skip
    parts = [part(3, *told) if beside is None else part(0, *told[:2], [])]
    if quality is None:
        return parts
    if quality.r2 is None:
        parts.append(part(2, [("no held-out R² yet", "muted")], []))
    else:
        short: Line = [("R² ", f"muted {about('r2')}"), (f"{quality.r2:.2f}", f"strong {about('r2')}")]
        variants = [short]
        if beside is not None:  # the comparison is what was asked for; the interval is not
            variants.insert(0, [*short, *_without(beside.r2, 2)])
        elif quality.r2_low is not None and quality.r2_high is not None:
            interval: Line = [*short, (f" [{quality.r2_low:.2f}, {quality.r2_high:.2f}]", f"muted {about('r2')}")]
            variants = [[("held-out ", "muted"), *interval], interval, short]
        parts.append(part(6, *variants))
    if quality.fvu is not None:
        label = choice.labels[choice.active]
        fvu: Line = [(f"{label}: ", "muted"), ("FVU ", f"muted {about('fvu')}"), (f"{quality.fvu:.3f}", about("fvu"))]
        fvu += _without(beside.fvu, 3) if beside is not None else []
        both = fvu
        if quality.fvu_nonlinear is not None:
            rest = about("fvu-nonlinear")
            both = [*fvu, (", nonlinear ", f"muted {rest}"), (f"{quality.fvu_nonlinear:.3f}", f"nonlinear {rest}")]
            both += _without(beside.fvu_nonlinear, 3) if beside is not None else []
        parts.append(part(2 if beside is None else 5, both, fvu, []))
    return parts


def _place_parts(ready: Ready, place: CursorPlace | None, source_name: str) -> list[Part]:
    parts: list[Part] = []
    texts = does("screen.over('texts', 'choose')", "Another context, or a text of yours")
    if place is not None and place.source == "context":
        count = (f"{place.context + 1}/{ready.n_contexts}", f"strong {texts}")
        parts.append(part(5, [("context ", f"muted {texts}"), count], [count]))
    elif place is not None:
        parts.append(part(5, [(source_name, f"strong {texts}")], [(place.source, f"strong {texts}")]))
    return [*parts, part(1, [(positions_text(ready.positions, ready.context_length), "muted")], [])]


def short_count(count: int) -> str:
    """150000 as 150k, 1234 as 1.2k, 999 as it is."""
    if count < 1000:
        return str(count)
    return f"{count / 1000:.1f}k".replace(".0k", "k") if count < 100_000 else f"{count // 1000}k"


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


COLUMN = 44
"""Width of the names before the seconds."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Something that can be opened instead."""

    name: str
    about: str
    go: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Offers:
    """What somebody can do whose target cannot be loaded."""

    here: Sequence[Offer] = ()
    """What opens now."""
    to_install: Sequence[tuple[str, str]] = ()
    """Built-in models that are not here, and the command that brings each."""
    commands: Sequence[str] = ()
    """To be run where there is a network: they fetch what the target lacks. Empty: it is all here, or not published."""
    folder: str = ""
    """Where those files belong."""


NOTHING = Offers()


def load_lines(
    session: SessionView, model: str, now: float, started: float, width: int, height: int, offers: Offers = NOTHING
) -> list[Line]:
    """The whole picture of a stage.

    Args:
        session: As known.
        model: What was asked for, for the first line.
        now: Clock time, seconds.
        started: Clock time at which the program began to connect.
        width: Columns.
        height: Lines; with less room the earliest steps go.
        offers: What can be opened if this cannot.
    """
    if session.stage in ("failed", "lost"):
        return failed_lines(session, offers, width)
    doing = "starting a session for" if session.stage == "connecting" else "loading"
    head: list[Line] = [[(f"{doing} ", "muted"), (model, "strong"), (f"   {now - started:.0f} s", "muted")], []]
    steps = [line for step in session.steps for line in step_lines(step, now, width)]
    if session.stage == "ready":
        steps.append([("… ", "accent"), ("scoring the first tokens", "")])
    room = max(1, height - len(head))
    return [*head, *steps[-room:]]


def step_lines(step: LoadStep, now: float, width: int) -> list[Line]:
    """A step; below one that fetches files, how far they are."""
    if not step.told.total_bytes or step.seconds is not None:
        return [step_line(step, now, width)]
    return [step_line(step, now, width, with_detail=False), [("  ", ""), *download_line(step.told, width - 2)]]


def download_line(told: LoadProgress, width: int) -> Line:
    """Bar, per cent, gigabytes, rate, time left: of all files of the step together."""
    done, total, rate = told.done_bytes, told.total_bytes, told.bytes_per_second
    parts = [
        part(4, *(bar(done, total, columns) for columns in (32, 20, 10))),
        part(9, [(percent(done, total), "strong")]),
        part(5, [(f"{size(done)} of {size(total)}" if done else size(total), "")], []),
    ]
    if rate > 0:
        parts.append(part(2, [(f"{size(rate)}/s", "muted")], []))
        parts.append(part(3, [(f"{duration((total - done) / rate)} left", "")], []))
    return joined(fit(parts, width))


def size(n_bytes: float) -> str:
    """Bytes as hubs and disks count them, in powers of ten: 35 MB, 1.20 GB."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def step_line(step: LoadStep, now: float, width: int, *, with_detail: bool = True) -> Line:
    """A step with its mark, name, detail and seconds."""
    done = step.seconds is not None
    seconds = step.seconds if step.seconds is not None else now - step.started
    name_width = max(8, min(COLUMN, width - 12))
    detail = f"  {step.told.detail}" if step.told.detail and with_detail else ""
    name = cut(step.told.what, name_width)
    return [
        ("✓ " if done else "… ", "good" if done else "accent"),
        (name, "" if done else "strong"),
        (left(visible(detail) if detail else "", max(0, name_width - len(name))), "muted"),
        (f"{seconds:7.1f} s", "muted"),
    ]


def offer_lines(offers: Offers, width: int) -> list[Line]:
    """What opens here, by number; what would have to be installed; how files come over from elsewhere."""
    lines: list[Line] = []
    if offers.here or offers.to_install:
        lines += [[], [("instead", "accent")]]
    size = max(map(len, [each.name for each in offers.here] + [name for name, _ in offers.to_install]), default=0)
    for place, each in enumerate(offers.here[:9], start=1):
        do = click(f"offer({place})")
        lines.append([(f"{place}  ", f"key {do}"), (left(each.name, size), f"strong {do}"), (f"  {each.about}", do)])
    for name, command in offers.to_install:
        lines.append([("   ", ""), (left(name, size), "muted"), (f"  after {command}", "muted")])
    if offers.commands:
        copy = click("copy")
        lines += [[], [("where there is a network", "accent"), ("   y", f"key {copy}"), (" copies", f"muted {copy}")]]
        lines += [[(f"   {cut(command, max(width - 3, 8))}", "")] for command in offers.commands]
        lines += wrapped(f"Then copy its Hugging Face cache into {visible(offers.folder)}.", width, "muted", least=20)
    return lines


def failed_lines(session: SessionView, offers: Offers, width: int) -> list[Line]:
    """The error's sentences, where the log is, and the ways on."""
    what = "the session could not load its target" if session.log_path else "no session could be started"
    lines: list[Line] = [[(what, "error")], []]
    text = session.error or "No reason was given."
    for sentence in text.splitlines():
        lines += wrapped(visible(sentence), min(width, 100), "strong", least=20)
    if session.log_path:
        lines += [[], [("log  ", "muted"), (session.log_path, "")]]
    ways: Line = [
        piece for key, what in WAYS for piece in ((key, f"key {pressed(key)}"), (what, f"muted {pressed(key)}"))
    ]
    return [*lines, *offer_lines(offers, width), [], ways]


class LoadPane(LinePane, can_focus=True):
    """Told by the screen twice a second while something loads; of a load that failed, what can be opened instead."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"offer({number})", show=False) for number in range(1, 10)),
        Binding("y", "copy", show=False),
    ]
    DEFAULT_CSS = """
    LoadPane { padding: 1 3; }
    """

    def __init__(self, model: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._model = visible(model)
        self._told: tuple[SessionView, float, float] | None = None
        self.offers = NOTHING
        self.draw(
            lambda _width, _height: [
                [("starting a session for ", "muted"), (self._model, "strong"), ("   0 s", "muted")]
            ]
        )

    def show(self, session: SessionView, now: float, started: float) -> None:
        """Draw a stage."""
        offers, self._told = self.offers, (session, now, started)
        self.draw(lambda width, height: load_lines(session, self._model, now, started, width, height, offers))

    def offer(self, offers: Offers) -> None:
        """What can be opened instead is known; its numbers are keys."""
        self.offers = offers
        self.focus()
        if self._told is not None:
            self.show(*self._told)

    def action_offer(self, number: int) -> None:
        """Open it."""
        if 0 < number <= len(self.offers.here):
            self.offers.here[number - 1].go()

    def action_copy(self) -> None:
        """What brings the files."""
        if self.offers.commands:
            self.app.copy_to_clipboard("\n".join(self.offers.commands))
            self.notify(
                f"Copied {len(self.offers.commands)} commands." if len(self.offers.commands) > 1 else "Copied it."
            )


class OpeningScreen(Screen[int]):
    """Header, loading picture and footer."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.quit", "quit", show=False, id="opening.quit")]

    def __init__(self, model: str) -> None:
        super().__init__()
        self._model = model

    def compose(self) -> ComposeResult:
        """As the Stream screen begins."""
        footer = FooterPane()
        footer.show([("q", "quit")])
        yield HeaderPane(self._model)
        yield footer
        yield LoadPane(self._model)

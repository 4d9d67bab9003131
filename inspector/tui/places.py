"""Everything that can be gone to by name: for the command palette, and for the switcher, which lists it at once.

Sessions, the registry, the suites and the experiments are read in a thread when the palette opens; nothing of it
imports torch. Textual's palette does the matching and the drawing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, cast

from textual.command import CommandPalette, DiscoveryHit, Hit, Hits, Provider

from inspector.drawing.safe_text import visible
from inspector.drawing.tokens import MODES, TokenMode
from inspector.errors import ExitCode, InspectorError
from inspector.spec import TargetSpec, another_model, without_saes
from inspector.tui.screens.base import OpenScreen, OpenTarget

if TYPE_CHECKING:
    from textual.message import Message

    from inspector.session.discovery import SessionRecord
    from inspector.tui.screens.stream import StreamScreen
    from inspector.tui.session import Client, Connect
    from inspector.tui.widgets.session_panes import Offer, Offers

MOST_TEXTS = 3
"""Numbers in what was typed that are taken for contexts."""


class Host(Protocol):
    """The app, as far as going somewhere concerns it."""

    @property
    def home(self) -> StreamScreen | None:
        """The Stream; None before it is there."""

    @property
    def target(self) -> TargetSpec:
        """What is looked at."""

    def post_message(self, message: Message) -> bool:
        """Ask for a screen or another target."""

    async def open(self, connect: Connect, asked: TargetSpec | None, model: str) -> None:
        """A new Stream in the place of this one."""

    def say(self, text: str, severity: Literal["information", "error"] = "information") -> None:
        """A notice."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Something with a name."""

    name: str
    """'Session: demo · layer 3'; its first word is its kind."""
    about: str
    go: Callable[[], Awaitable[None] | None]
    listed: bool = True
    """Whether the switcher shows it before anything is typed."""


def read_places(app: Host) -> list[Place]:
    """All of them, the likeliest first. For a thread: looks into folders and asks sockets.

    Args:
        app: what goes there; nothing of it is called here but what it knows of its target.
    """
    target = app.target
    places: list[Place] = []
    for read in (_sessions, _hooks, _suites, _models, _experiments):
        with contextlib.suppress(InspectorError, OSError):  # what cannot be read is not offered
            places += read(app, target)
    places += [
        Place(name=f"Colour mode: {mode.title}", about=mode.meaning, go=partial(_colour, app, mode), listed=False)
        for mode in MODES
    ]
    return places


async def open_target(app: Host, target: TargetSpec, connect_to: Callable[[TargetSpec], Awaitable[Client]]) -> None:
    """Ask this session to load it beside the model that it holds; where it cannot, open another. From a worker."""
    from inspector.session.protocol import Failed, Move

    home = app.home
    if home is not None and home.session.stage == "ready":
        answer = await home.call(Move(target=target))
        # What is wrong with the target itself is wrong in any session: this one stays, and says it.
        if isinstance(answer, Failed) and answer.exit_code in (ExitCode.TARGET, ExitCode.DATA):
            app.say(answer.message, "error")
            return
    await app.open(partial(connect_to, target), target, target.model)


def read_offers(app: Host) -> Offers:
    """What somebody can do whose target cannot be loaded. For a thread: looks into the cache."""
    from inspector.sources.built_in import BUILT_IN, install_of, is_installed
    from inspector.sources.model_files import hub_cache
    from inspector.tui.widgets.session_panes import Offer, Offers

    target = app.target
    others = [name for name in BUILT_IN if name != target.model]
    built_in = [
        Offer(name=name, about="built in, with SAEs trained here", go=_opens(app, another_model(target, name)))
        for name in others
        if is_installed(name)
    ]
    return Offers(
        here=[*built_in, *_cached(app, target)],
        to_install=[(name, install_of(name)) for name in others if not is_installed(name)],
        commands=_fetching(target),
        folder=str(hub_cache(target.cache_dir)),
    )


def _cached(app: Host, target: TargetSpec) -> Iterator[Offer]:
    """Published models that are in the cache with SAEs of theirs: the hook that has most of them."""
    from inspector.sources.model_files import find_model
    from inspector.sources.registry import load_registry
    from inspector.tui.suite_list import opened, read_suites, total_text
    from inspector.tui.widgets.session_panes import Offer

    registry = load_registry()
    for name in dict.fromkeys(registry.model_id(name) or name for name in registry.names()):
        with contextlib.suppress(InspectorError, OSError):
            find_model(name, target.cache_dir)
            suites = read_suites(another_model(target, name))
            found = max(([ref for ref in hook.refs if ref.on_disk] for hook in suites.hooks), key=len)
            if found:
                about = f"in the cache, {total_text(found)} of {visible(found[0].hook_name)}"
                yield Offer(name=name, about=about, go=_opens(app, opened(suites, found)))


def _fetching(target: TargetSpec) -> list[str]:
    """What fetches the model and the SAEs that the target names, as far as they are published and not here."""
    from inspector.sources import suites
    from inspector.sources.model_files import find_model
    from inspector.tui.suite_list import fetch_commands

    model = suites.model_id(target)
    if model is None:
        return []
    commands = []
    try:
        find_model(model, target.cache_dir)
    except InspectorError:
        commands.append(f"hf download {model}")
    with contextlib.suppress(InspectorError):
        known = suites.known_saes(replace(target, model=model))
        hook, _ = suites.resolve_hook(known, target)
        commands += fetch_commands(suites.select(known, replace(target, hook=hook)))
    return commands


async def offer(app: Host) -> None:
    """Say on the picture of a failed load what can be opened instead. From a worker."""
    from inspector.tui.widgets.session_panes import LoadPane

    offers = await asyncio.to_thread(read_offers, app)
    if app.home is not None and app.home.session.stage == "failed":
        app.home.query_one(LoadPane).offer(offers)


async def measure(app: Host, experiments: tuple[str, ...]) -> None:
    """Queue these experiments on what is loaded, with their defaults, unless they are under way. From a worker."""
    from inspector.session.protocol import JobTold, StartJob

    home, names = app.home, ", ".join(experiments)
    if home is None or any(set(experiments) <= set(job.experiments) for job in home.session.unfinished):
        app.say(f"{names} is under way: J shows how far it is.")
        return
    answer = await home.call(StartJob(experiments=list(experiments)))
    if isinstance(answer, JobTold):
        app.say(f"{names} is queued: J shows how far it is.")
    else:
        app.say(getattr(answer, "message", "It could not be queued."), "error")


async def _attach(app: Host, record: SessionRecord) -> None:
    from inspector.session.client import SessionClient

    await app.open(partial(SessionClient.attach, record.id), None, record.model)


def _sessions(app: Host, _target: TargetSpec) -> list[Place]:
    from inspector.session import discovery

    places = []
    current = app.home.session.id if app.home is not None else ""
    for record in discovery.list_sessions():
        name, here = f"{visible(record.model)} · {visible(record.hook)}", record.id == current
        held = memory_text(record)
        about = f"{record.state}, {held}{', this one' if here else ''}"
        if not here:
            go = partial(_attach, app, record)
            places.append(Place(name=f"Session: {name}", about=about, go=go))
        end = partial(_end, app, record)
        places.append(Place(name=f"End session: {name}", about=f"{about}: its memory becomes free", go=end))
    return places


def memory_text(record: SessionRecord) -> str:
    """'holds 1.4 GB', with a GPU 'holds 1.4 GB and 18.2 GB of the device'."""
    from inspector.disk.locks import resident_bytes

    parts = [f"{n / 1e9:.1f} GB{of}" for n, of in (
        (resident_bytes(record.pid), ""), (record.device_bytes, " of the device")) if n is not None]  # fmt: skip
    return f"holds {' and '.join(parts)}" if parts else "memory not known"


def _hooks(app: Host, target: TargetSpec) -> list[Place]:
    from inspector.tui.suite_list import read_suites, total_text, whole

    suites = read_suites(target)
    return [
        Place(
            name=f"Hook: {visible(hook.name)}{'' if hook.layer is None else f' · layer {hook.layer}'}",
            about=f"{visible(target.model)}, {total_text(hook.refs)}",
            go=_opens(app, whole(target, hook)),
        )
        for hook in suites.hooks
    ]


def _suites(app: Host, target: TargetSpec) -> list[Place]:
    from inspector.sources.suites import model_id, releases

    about = f"published SAEs of {model_id(target)}"
    return [
        Place(
            name=f"Suite: {release}",
            about=about,
            go=_opens(app, replace(without_saes(target), suite=release)),
        )
        for release in releases(target)
    ]


def _models(app: Host, target: TargetSpec) -> list[Place]:
    from inspector.sources.built_in import BUILT_IN, about
    from inspector.sources.suites import model_names

    return [
        Place(
            name=f"Model: {name}",
            about=about(name) if name in BUILT_IN else "with the published SAEs of it",
            go=_opens(app, another_model(target, name)),
        )
        for name in model_names()
    ]


def _experiments(app: Host, _target: TargetSpec) -> list[Place]:
    from inspector.experiments import discover

    return [
        Place(
            name=f"Experiment: {each.title} ({each.id})",
            about=each.question,
            go=partial(_ask, app, OpenScreen("experiments", (each.id,))),
            listed=False,
        )
        for each in discover().values()
    ]


def _ask(app: Host, message: Message) -> None:
    app.post_message(message)


def _opens(app: Host, target: TargetSpec) -> Callable[[], None]:
    return partial(_ask, app, OpenTarget(target))


async def _colour(app: Host, mode: TokenMode) -> None:
    if app.home is not None:
        app.home.state.mode = mode
        await app.home.settle()


async def _end(app: Host, record: SessionRecord) -> None:
    from inspector.session import discovery

    held = memory_text(record)
    try:
        await asyncio.to_thread(discovery.stop_session, record.id)
    except InspectorError as error:
        app.say(str(error), "error")
    else:
        app.say(f"Ended the session of {visible(record.model)}, which {held.replace('holds', 'held')}.")


class Places(Provider):
    """For the palette: found when typed."""

    _reading: asyncio.Future[list[Place]]

    async def startup(self) -> None:
        """Begin to read what there is."""
        self._reading = asyncio.ensure_future(asyncio.to_thread(read_places, cast("Host", self.app)))

    async def shutdown(self) -> None:
        """Nobody waits for it any more."""
        self._reading.cancel()

    async def places(self) -> list[Place]:
        """What there is. Every key cancels the search of the key before, but not the reading that it waits for."""
        return await asyncio.shield(self._reading)

    async def search(self, query: str) -> Hits:
        """What matches, the best first."""
        matcher = self.matcher(query)
        for place in await self.places():
            score = matcher.match(place.name)
            if score > 0:
                yield Hit(score, matcher.highlight(place.name), place.go, help=place.about)
        app = cast("Host", self.app)
        ready = app.home.session.ready if app.home is not None else None
        numbers = [int(word) for word in query.split() if word.isdigit() and len(word) < 10][:MOST_TEXTS]
        for number in numbers:
            if app.home is not None and ready is not None and 1 <= number <= ready.n_contexts:
                go = partial(app.home.go, number - 1, 0)
                yield Hit(1.0, f"Text: context {number}", go, help=f"of {ready.n_contexts:,}, {visible(ready.text)}")


class Switch(Places):
    """For the switcher: listed before anything is typed."""

    async def discover(self) -> Hits:
        """Sessions, hooks, suites, models."""
        for place in await self.places():
            if place.listed:
                yield DiscoveryHit(place.name, place.go, help=place.about)


def switcher() -> CommandPalette:
    """Another model, hook, suite, session or text, by name."""
    return CommandPalette((Switch,), placeholder="Model, hook, suite, session, text …")

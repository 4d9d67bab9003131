"""Ctrl-C, from the first word of a command to its end, and what libraries make of it.

Python raises KeyboardInterrupt wherever the main thread is. In the middle of an import that may be code which makes
another error of it, or prints it and goes on: an optional package then looks like one that is not installed. So Ctrl-C
is noted. Until this program has heard it, the next import of a library raises it again and `follow` looks between two
events; and whatever a library raised in its place is told as what it is.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from _thread import get_ident
from collections.abc import Iterator
from types import FrameType, TracebackType

_OURS = frozenset({"inspector", *sys.stdlib_module_names})
"""Packages that may be imported after Ctrl-C, by what tidies up."""


class _CtrlC:
    """The handler of the signal; a finder of modules that finds none; a hook that prints no traceback of it."""

    def __init__(self) -> None:
        self.pressed = False
        self._main = get_ident()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        sys.excepthook = self._print
        signal.default_int_handler(number, frame)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        if get_ident() == self._main and name.partition(".")[0] not in _OURS:
            raise KeyboardInterrupt

    def heard(self) -> None:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)

    @staticmethod
    def _print(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)


_under_way = _CtrlC()


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Note Ctrl-C while the block runs; where another handler is set, or no signal can arrive, nothing is noted."""
    global _under_way
    _under_way = _CtrlC()
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _under_way)
    except ValueError:  # in another thread than the main one no signal arrives
        yield
        return
    hook = sys.excepthook
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _under_way.heard()
        sys.excepthook = hook


def pressed() -> bool:
    """Whether Ctrl-C was pressed in the command under way."""
    return _under_way.pressed


def heard() -> None:
    """The command is ending because of it: imports are imports again."""
    _under_way.heard()

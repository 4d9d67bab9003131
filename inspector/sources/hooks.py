"""Hook points of a loaded model: reading values as they pass, and putting others in their place.

transformer-lens ignores a hook name it does not know, which turns a typing error into a perfect-looking result
(a splice that splices nothing recovers all of the loss). So names are resolved here, once, and every read is checked to
have happened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from inspector.errors import TargetError, nearest

if TYPE_CHECKING:
    from torch import Tensor

LEVEL = 8128
"""transformer-lens removes hooks by level; this one is used here alone, so no other hook is removed."""


class Stop(Exception):
    """Raised by a hook to leave the forward pass once everything asked for has been seen."""


def resolve(points: Mapping[str, Any], hook_name: str) -> Any:
    """The hook point of that name.

    Raises:
        TargetError: for an unknown name, with the nearest ones.
    """
    if hook_name not in points:
        raise TargetError(f"The model has no hook {hook_name!r}.{nearest(hook_name, points)}")
    return points[hook_name]


@contextmanager
def capture(points: Mapping[str, Any], names: Sequence[str], *, stop: bool = False) -> Iterator[dict[str, Tensor]]:
    """Collect the values of these hooks while the model runs inside the `with`.

    Args:
        points: all hook points by name.
        names: hooks to read.
        stop: raise `Stop` out of the model as soon as all have been seen; swallowed here.

    Yields:
        A dictionary that fills as the hooks fire.
    """
    taken: dict[str, Tensor] = {}
    chosen = {name: resolve(points, name) for name in names}

    def reader(name: str) -> Any:
        def read(value: Tensor, hook: Any) -> None:
            taken[name] = value
            if stop and len(taken) == len(chosen):
                raise Stop

        return read

    try:
        for name, point in chosen.items():
            point.add_hook(reader(name), level=LEVEL)
        with suppress(Stop):
            yield taken
    finally:
        for point in chosen.values():
            point.remove_hooks(dir="fwd", level=LEVEL)
    if missing := [name for name in chosen if name not in taken]:
        raise TargetError(
            f"Hook {missing[0]!r} exists but no value passed it in a forward pass. "
            "It is switched off or belongs to another mode of the model; choose another."
        )


@contextmanager
def change(points: Mapping[str, Any], hook_name: str, by: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put what `by` makes of the hook's value in its place while the model runs inside the `with`.

    Raises:
        TargetError: no value passed the hook.
    """
    point = resolve(points, hook_name)
    fired = False

    def put(value: Tensor, hook: Any) -> Tensor:
        nonlocal fired
        fired = True
        return by(value)

    try:
        point.add_hook(put, level=LEVEL)
        yield
    finally:
        point.remove_hooks(dir="fwd", level=LEVEL)
    if not fired:
        raise TargetError(
            f"Hook {hook_name!r} exists but no value passed it, so nothing was replaced. Splice at another --hook."
        )


def replace(points: Mapping[str, Any], hook_name: str, replacement: Tensor) -> AbstractContextManager[None]:
    """Put `replacement` in place of the hook's value while the model runs inside the `with`.

    Args:
        points: all hook points by name.
        hook_name: hook to replace.
        replacement: [c, t, d] with heads flattened; brought to the shape and dtype of the value it replaces.

    Raises:
        TargetError: when the sizes differ, or no value passed the hook.
    """

    def other(value: Tensor) -> Tensor:
        if value.numel() != replacement.numel() or value.shape[:2] != replacement.shape[:2]:
            raise TargetError(
                f"The replacement has shape {list(replacement.shape)} but {hook_name} has {list(value.shape)}. "
                "Give one vector per token, heads flattened."
            )
        return replacement.reshape(value.shape).to(value.dtype)

    return change(points, hook_name, other)

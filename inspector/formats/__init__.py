"""SAE layouts, one file each: which files they have, how they are recognised, their hook, how they are read, what they
refuse. What lists, fetches, plans or loads SAEs asks here and has no table of layouts of its own: every file of this
folder that has LAYOUTS is one.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import struct
import zipfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from inspector.disk.files import shown
from inspector.errors import TargetError, first_line
from inspector.formats.layout import Facts, Folder, Layout, Named, NoHook, Refused
from inspector.formats.weights import Converted, Folds, Kept, Stored
from inspector.spec import SaeRef

__all__ = [
    "LAYOUTS", "Converted", "Facts", "Folder", "Folds", "Kept", "Layout", "Named", "NoHook", "Refused", "Stored",
    "layout_of", "read_ref",
]  # fmt: skip

LAYOUTS: tuple[Layout, ...] = tuple(
    sorted(
        (
            layout
            for found in pkgutil.iter_modules(__path__)
            for layout in getattr(importlib.import_module(f"{__name__}.{found.name}"), "LAYOUTS", ())
        ),
        key=lambda layout: layout.rank,
    )
)
"""In the order in which a folder is asked which it is."""
_BY_NAME = {layout.name: layout for layout in LAYOUTS}
_BY_CONVERSION = {conversion: layout for layout in LAYOUTS for conversion in layout.conversions}
_LAYER = re.compile(r"blocks\.(\d+)\.")
_BROKEN = (
    OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError, OverflowError, RecursionError,
    zipfile.BadZipFile, struct.error,
)  # fmt: skip
"""What readers of small files raise when those are not what they should be."""


def layout_of(name: str) -> Layout:
    """The layout of that name.

    Raises:
        TargetError: there is none, as in what a newer version of this program stored.
    """
    if name not in _BY_NAME:
        raise TargetError(f"The SAE layout {shown(name)} is not known here. Known: {', '.join(_BY_NAME)}.")
    return _BY_NAME[name]


def layout_of_conversion(conversion: str | None) -> Layout | None:
    """The layout that sae-lens' registry calls so; None: it is not known here."""
    return _BY_CONVERSION.get(conversion)


def recognise(names: Collection[str]) -> Layout | None:
    """The layout of a folder with these files and folders in it; None if it is no SAE of these."""
    return next((layout for layout in LAYOUTS if not layout.is_file and layout.recognises(names)), None)


def layer_of(hook_name: str) -> int | None:
    """The layer in a hook name; `None` if it has none."""
    match = _LAYER.match(hook_name)
    return int(match[1]) if match else None


def read_facts(layout: Layout, folder: Folder) -> Facts:
    """What the small files of an SAE say.

    Raises:
        Refused: it is none that can be measured.
        TargetError: they are not what they should be.
    """
    assert layout.facts is not None, "only folders are read, and their layouts have facts"
    for path in (folder.path / name for name in layout.files):
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise TargetError(f"{path} is not a regular file. Put the SAE's own file in its place.")
    if layout.files and not path.exists():  # a pruned cache leaves links that lead nowhere
        raise TargetError(f"{path} is not there, or is a link to nothing. Fetch it again, or remove its folder.")
    try:
        return layout.facts(folder)
    except TargetError:
        raise
    except _BROKEN as e:
        why = f"it has no {e}" if isinstance(e, KeyError) else first_line(e, 160)
        raise TargetError(
            f"{folder.path / layout.files[0]} is not of a whole SAE of the layout {layout.name}: {why}. "
            "Repair or remove its folder."
        ) from e


def read_ref(layout: Layout, path: Path, root: Path, *, said_hook: str | None = None) -> SaeRef:
    """The reference of one SAE folder.

    Args:
        layout: of the folder.
        path: of the folder.
        root: of the suite; the id is the path below it.
        said_hook: what the user says with --hook, of the one SAE that is meant.

    Raises:
        NoHook: neither its files nor the user say which hook it reads.
        Refused: it is none that can be measured.
        TargetError: its files are not what they should be.
    """
    try:
        facts = read_facts(layout, Folder(path=path, root=root))
    except NoHook as error:
        if said_hook is None:
            raise
        raise Refused(f"{error}") from error
    notes = facts.notes
    hook_name = facts.hook_name
    if hook_name is None:
        if said_hook is None:
            raise NoHook(
                f"{path / layout.files[0]} does not say which hook the SAE reads, and no folder's name does. "
                "Say it with --sae and --hook, for example --hook blocks.12.hook_resid_post."
            )
        hook_name = said_hook
        notes = (*notes, f"The files of {path.name} do not say which hook they are of; {said_hook} is as you said.")
    below = path.relative_to(root).as_posix()
    ref = SaeRef(
        sae_id=path.name if below == "." else below,
        release=str(root),
        layer=layer_of(hook_name),
        hook_name=hook_name,
        d_in=facts.d_in,
        d_sae=facts.d_sae,
        nominal_l0=facts.l0,
        n_bytes=facts.weights.stat().st_size,
        path=str(path),
        format=layout.name,
        model=facts.model,
        module=facts.module,
        notes=notes,
    )
    return replace(ref, d_in=int(ref.d_in), d_sae=int(ref.d_sae))

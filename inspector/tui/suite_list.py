"""Which SAEs there are for a model, as a grid of hooks, widths and L0s; and how missing ones are fetched.

Knows no Textual and no torch. Reading takes a fraction of a second (the registry, sizes of files) and a download much
longer, so the screen calls both in a thread.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from inspector.errors import InspectorError
from inspector.events import Downloading, Loading
from inspector.options import width_label
from inspector.spec import SITE_HOOKS, SaeRef, Site, TargetSpec, without_saes

SITES: tuple[Site, ...] = ("resid", "mlp", "attn")


@dataclass(frozen=True, kw_only=True)
class Row:
    """SAEs of one width at one hook, sparse to dense; an unknown L0 first."""

    d_sae: int
    """0: only its configuration says it, and that is not on disk."""
    cells: tuple[SaeRef, ...]

    @property
    def label(self) -> str:
        """16k; ? where the width is not known."""
        return width_label(self.d_sae) if self.d_sae else "?"


@dataclass(frozen=True, kw_only=True)
class Hook:
    """One place of the model with its SAEs."""

    name: str
    layer: int | None
    site: str
    """resid, mlp, attn, or the hook's own name."""
    rows: tuple[Row, ...]
    """Narrow to wide."""

    @property
    def refs(self) -> tuple[SaeRef, ...]:
        """All of them, row by row."""
        return tuple(ref for row in self.rows for ref in row.cells)


@dataclass(frozen=True, kw_only=True)
class Suites:
    """All that is known for one target's model."""

    target: TargetSpec
    """As asked, without a choice of layer or SAE."""
    hooks: tuple[Hook, ...]
    """By layer, then site."""

    @property
    def refs(self) -> tuple[SaeRef, ...]:
        """Every SAE."""
        return tuple(ref for hook in self.hooks for ref in hook.refs)


def read_suites(target: TargetSpec) -> Suites:
    """Every SAE known for the target's model, at every site.

    Raises:
        TargetError: none is known, with what to do.
    """
    from inspector.sources.suites import every_sae

    return Suites(target=without_saes(target), hooks=hooks_of(every_sae(target)))


def hooks_of(refs: Iterable[SaeRef]) -> tuple[Hook, ...]:
    """The grid of these SAEs."""
    by_hook: dict[str, list[SaeRef]] = {}
    for ref in refs:
        by_hook.setdefault(ref.hook_name, []).append(ref)
    hooks = [
        Hook(name=name, layer=same[0].layer, site=site_of(name, same[0].layer), rows=_rows(same))
        for name, same in by_hook.items()
    ]
    order: dict[str, int] = {site: number for number, site in enumerate(SITES)}
    return tuple(
        sorted(hooks, key=lambda each: (-1 if each.layer is None else each.layer, order.get(each.site, 9), each.name))
    )  # fmt: skip


def site_of(hook_name: str, layer: int | None) -> str:
    """resid, mlp or attn; the hook's own name where it is none of them."""
    for site, pattern in SITE_HOOKS.items():
        if layer is not None and hook_name == pattern.format(layer=layer):
            return site
    return hook_name


def _rows(refs: Sequence[SaeRef]) -> tuple[Row, ...]:
    by_width: dict[int, list[SaeRef]] = {}
    for ref in refs:
        by_width.setdefault(ref.d_sae, []).append(ref)
    return tuple(
        Row(d_sae=d_sae, cells=tuple(sorted(by_width[d_sae], key=lambda ref: (ref.nominal_l0 or -1.0, ref.sae_id))))
        for d_sae in sorted(by_width)
    )


def l0_text(ref: SaeRef) -> str:
    """58; ? where it is not known, never 0."""
    return "?" if ref.nominal_l0 is None else f"{ref.nominal_l0:g}"


def size_text(n_bytes: int) -> str:
    """1.2 GB, 340 MB; ? for 0, which is unknown."""
    if n_bytes <= 0:
        return "?"
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def total_text(refs: Collection[SaeRef]) -> str:
    """'3 SAEs, 1.2 GB, 0.4 GB of it to download'; sizes that are not known are counted."""
    total = sum(ref.n_bytes for ref in refs)
    missing = [ref for ref in refs if not ref.on_disk]
    unknown = sum(ref.n_bytes <= 0 for ref in refs)
    parts = [f"{len(refs)} SAE{'' if len(refs) == 1 else 's'}", size_text(total)]
    if missing:
        parts.append(f"{size_text(sum(ref.n_bytes for ref in missing))} of it to download")
    if unknown and total:
        parts.append(f"{unknown} of unknown size")
    return ", ".join(parts)


def nearest_l0(hook: Hook, l0: float) -> list[SaeRef]:
    """Per width the SAE whose nominal L0 is nearest, as `--l0` picks; widths of which none is known are left out."""
    picks = []
    for row in hook.rows:
        known = [ref for ref in row.cells if ref.nominal_l0 is not None]
        if known:
            picks.append(min(known, key=lambda ref: (abs((ref.nominal_l0 or 0.0) - l0), ref.nominal_l0 or 0.0)))
    return picks


def first_hook(hooks: Sequence[Hook], loaded: str, target: TargetSpec) -> int:
    """Where the cursor begins: at what is loaded, else at what was asked for, else at what is on disk, else at the top.

    Args:
        hooks: of the list.
        loaded: name of the hook that the session has; '' if it has none.
        target: what was asked for; with a site, but perhaps without a layer or hook.
    """
    layers = target.layers if target.hook is None else None

    def rank(hook: Hook) -> tuple[bool, ...]:
        asked = hook.name == target.hook or (layers is not None and hook.layer in layers)
        return hook.name == loaded, asked and hook.site == target.site, asked, any(ref.on_disk for ref in hook.refs)

    return max(range(len(hooks)), key=lambda at: (rank(hooks[at]), -at), default=0)


def opened(suites: Suites, refs: Sequence[SaeRef]) -> TargetSpec:
    """The target that loads exactly these SAEs, which are of one hook."""
    hook = refs[0].hook_name
    return replace(suites.target, hook=hook, layers=None, saes=tuple(ref.sae_id for ref in refs))


def whole(target: TargetSpec, hook: Hook) -> TargetSpec:
    """The target with all SAEs of a hook, or of published ones those that `--l0` or its default picks per width."""
    return replace(target, hook=hook.name, layers=None, layers_from=None, saes=(), widths=None)


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """How far a download is."""

    number: int
    """Of the SAE under way, from 1."""
    total: int
    """SAEs in all."""
    what: str
    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_second: float = 0.0


def fetch_all(
    refs: Sequence[SaeRef], target: TargetSpec, tell: Callable[[Fetching], None], cancelled: Callable[[], bool]
) -> str:
    """Fetch those that are not on disk, one after the other. For a thread.

    Args:
        refs: published SAEs; what lies in a directory is there already.
        target: whose cache folder and --offline hold.
        tell: called a few times a second.
        cancelled: asked as often; what has arrived is kept for the next time.

    Returns:
        '' if all are there; else why not, in two sentences.
    """
    from inspector.sources.published import fetch_files

    missing = [ref for ref in refs if not ref.on_disk and ref.repo is not None]
    for number, ref in enumerate(missing, 1):
        steps = fetch_files(ref, target)
        told = Fetching(number=number, total=len(missing), what=ref.sae_id)
        tell(told)
        try:
            for step in steps:
                if cancelled():
                    steps.close()
                    return "The download was stopped. What has arrived is kept; d goes on with it."
                if isinstance(step, Downloading):
                    tell(Fetching(number=number, total=len(missing), what=ref.sae_id, done_bytes=step.done_bytes,
                                  total_bytes=step.total_bytes, bytes_per_second=step.bytes_per_second))  # fmt: skip
                elif isinstance(step, Loading):
                    tell(Fetching(number=number, total=len(missing), what=step.what))
        except InspectorError as error:
            return str(error)
    return ""


def fetch_commands(refs: Sequence[SaeRef]) -> list[str]:
    """What fetches the missing ones from a shell, with the hub's own client."""
    from inspector.sources.published import files_of

    files: dict[str, list[str]] = {}
    for ref in refs:
        if not ref.on_disk and ref.repo is not None:
            files.setdefault(ref.repo, []).extend(files_of(ref))
    return [shlex.join(["hf", "download", repo, *dict.fromkeys(names)]) for repo, names in files.items()]

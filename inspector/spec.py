"""What was asked for: plain data that crosses the command line, the socket and the result file unchanged, and the words
of the command that asks for it.

Nothing here loads, checks or computes anything; `None` always means "the default for this model", which
`inspector.sources` decides and every result records. No torch, no numpy: the process that paints imports this.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from inspector.options import (
    DEVICE,
    DTYPE,
    EACH,
    FACTOR,
    FIELD_NAME,
    NUMBER,
    SIZE,
    SPAN,
    SWITCH,
    TEXT,
    WHOLE,
    WIDTHS,
    Notation,
    Option,
    width_label,
)  # fmt: skip

Site = Literal["resid", "mlp", "attn"]
Split = Literal["context", "token"]
Profile = Literal["careful", "paper-text", "paper-code"]
Null = Literal["shuffle", "gaussian", "affine"]
LlamaGate = Literal["published", "topk"]

TOKENS = "tokens"
"""In the place of a run's experiments: the per-token table."""
DEFAULT_TEXT = "hf:monology/pile-uncopyrighted"
SITE_HOOKS: dict[Site, str] = {
    "resid": "blocks.{layer}.hook_resid_post",
    "mlp": "blocks.{layer}.hook_mlp_out",
    "attn": "blocks.{layer}.attn.hook_z",
}
"""On Gemma 2 `hook_mlp_out` is after the post-norm, as Gemma Scope reads it; `hook_z` is before the projection."""


OTHER_HOOKS: dict[Site, tuple[str, ...]] = {"attn": ("blocks.{layer}.hook_attn_out",)}
"""Where a suite has SAEs of a site if not at its hook: Llama Scope reads what attention adds to the stream."""


def hook_name_of(site: Site, layer: int) -> str:
    """Full hook name of a site at a layer, e.g. blocks.20.hook_resid_post."""
    return SITE_HOOKS[site].format(layer=layer)


def hooks_of(site: Site, layer: int) -> tuple[str, ...]:
    """Every hook that counts as the site at a layer, the usual one first."""
    return tuple(hook.format(layer=layer) for hook in (SITE_HOOKS[site], *OTHER_HOOKS.get(site, ())))


@dataclass(frozen=True, kw_only=True)
class SaeRef:
    """One SAE, known by name; loaded or not."""

    sae_id: str
    """Unique within the release; for a directory, the path below it."""
    release: str
    """Registry release, or the suite's directory."""
    layer: int | None
    """Layer index; None if the hook name has none."""
    hook_name: str
    d_in: int
    """Width of the activation it reads."""
    d_sae: int
    """Number of latents."""
    nominal_l0: float | None = None
    """As in the SAE's name or configuration; None is unknown, never 0."""
    n_bytes: int = 0
    """Size of the weights on disk or to download."""
    on_disk: bool = True
    path: str | None = None
    """Directory or file of the weights; None until downloaded."""
    format: str = "sae-lens"
    """Name of the layout of the files, which decides how they are read; see `inspector.formats`."""
    repo: str | None = None
    """Hugging Face repository it is published in; None if it is only on disk."""
    file: str | None = None
    """Its folder or file in that repository."""
    revision: str | None = None
    """Commit or branch of the repository; None: the newest."""
    model: str | None = None
    """Hugging Face id of the model it was trained on, where known."""
    neuronpedia: str | None = None
    """Id under which its latents are published, checked against layer and width; None: not, or not surely."""
    norm_factor: float | None = None
    """Factor of the data set's norm that the registry gives and the weights lack (Llama Scope)."""
    module: str | None = None
    """Path of the model's module whose output it reads, where its files say that and no hook; see `formats.hooks`."""
    overrides: str = ""
    """JSON object of configuration keys that the registry says otherwise than the files; empty: none."""
    notes: tuple[str, ...] = ()
    """What a user should know of it: what was assumed, which keys are not known, on what text it was trained."""

    @property
    def label(self) -> str:
        """Short name for a legend: width and nominal L0."""
        l0 = "?" if self.nominal_l0 is None else f"{self.nominal_l0:g}"
        return f"{width_label(self.d_sae)}/{l0}"


def _asked(default: Any, flag: str, notation: Notation, text: str, **more: Any) -> Any:
    """A field of TARGET with the option that sets it."""
    return field(default=default, metadata={"option": Option(flag=flag, notation=notation, help=text, **more)})


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """TARGET, field by field, each with its option: command line, help, repeated commands and sessions read them here.

    A new option is one field here and the place that reads it.
    """

    model: str = _asked(
        "demo",
        "--model",
        TEXT,
        "demo, smollm2, gemma-2-9b and the like, a Hugging Face id, a directory or a .gguf. Default: demo.",
        metavar="NAME|DIR|FILE",
        is_path=True,
        built_in=("demo", "smollm2"),
    )
    layers: tuple[int, ...] | None = _asked(
        None, "--layer", WHOLE, "Layer, from 0. Default: the suite's, or the middle.", least=0
    )
    """None: the demo's middle layer, or the only layer the suite has."""
    layers_from: int | None = _asked(
        None, "--layers", SPAN, "Layers A to B, B not included, one after the other; without B all that have SAEs."
    )
    """In the place of `layers`: this layer and all later ones that have SAEs; see `sources.suites.layer_by_layer`."""
    site: Site = _asked("resid", "--site", TEXT, "Where in the layer. Default: resid.", choices=get_args(Site))
    hook: str | None = _asked(None, "--hook", TEXT, "A full hook name instead of layer and site.", metavar="NAME")
    """Overrides layers and site."""
    suite: str | None = _asked(
        None,
        "--suite",
        TEXT,
        "A published release, or a directory of SAEs. Default: the model's own.",
        metavar="RELEASE|DIR",
        is_path=True,
    )
    saes: tuple[str, ...] = _asked(
        (), "--sae", EACH, "Exactly this SAE; repeat for more.", metavar="ID|DIR", is_path=True
    )
    """Exact SAE ids or directories; empty means all of the hook."""
    widths: tuple[int, ...] | None = _asked(None, "--widths", WIDTHS, "Numbers of latents: 256,1k,16k. Default: all.")
    """Numbers of latents as labels denote them (16384 for 16k)."""
    l0: float | None = _asked(None, "--l0", NUMBER, "Per width, the SAE of the nearest nominal L0.", least=0)
    """Per width, take the SAE with the nearest nominal L0; None takes all."""
    text: str | None = _asked(
        None,
        "--text",
        TEXT,
        ".txt .md .py .json .jsonl .jsonl.zst .parquet, a data set of the hub. Default: the Pile; demo: its own; "
        "smollm2: pydoc.",
        metavar="demo|pydoc|FILE|hf:NAME",
        is_path=True,
        built_in=("demo", "pydoc"),
    )
    text_field: str | None = _asked(
        None,
        "--text-field",
        FIELD_NAME,
        "Which field of records is read. Default: text, content or the like; it is told.",
    )
    """Of records, the field that is read; None: see `sources.records.choose_field`."""
    contexts: int = _asked(300, "--contexts", WHOLE, "How many contexts.", least=1, shows_default=True)
    context_length: int | None = _asked(
        None,
        "--context-length",
        WHOLE,
        "Tokens each, BOS included. Default: 1024 or the model's limit.",
        least=2,
    )
    """Tokens per context, BOS included; None: 1024, or the model's limit if smaller."""
    positions: tuple[int, int | None] | None = _asked(
        None, "--positions", SPAN, "Which are fitted and scored. Default: 200:, less if contexts are short."
    )
    """Half-open range of positions that are fitted and scored; None: from 200, or an eighth of a short context."""
    train_tokens: int | None = _asked(
        None,
        "--train-tokens",
        WHOLE,
        "Tokens that fit the linear map. Default: 150000, or 60.7% of what there is.",
        least=1,
    )
    """None: the paper's 150,000, or its share of the tokens if there are fewer."""
    split: Split = _asked("context", "--split", TEXT, "What is held out.", choices=get_args(Split), shows_default=True)
    seed: int = _asked(0, "--seed", WHOLE, "Of the split and of resampling.", least=0, shows_default=True)
    device: str = _asked("auto", "--device", DEVICE, "auto, cpu, mps, cuda or cuda:N.", shows_default=True)
    dtype: Literal["auto", "float32", "bfloat16"] = _asked(
        "auto", "--dtype", DTYPE, "Of the model; SAEs are float32.", shows_default=True
    )
    offline: bool = _asked(False, "--offline", SWITCH, "Use no network; take only what is on disk.", of_session=False)
    cache_dir: str | None = _asked(
        None,
        "--cache-dir",
        TEXT,
        "Where downloads are kept. Default: the Hugging Face cache.",
        metavar="DIR",
        is_path=True,
        of_session=False,
    )
    accept_gate: bool = _asked(False, "--accept-gate", SWITCH, "Go on although the load gate failed; it is recorded.")
    """Makes another session: a view that did not accept must not attach to numbers that another one accepted."""
    max_memory: int | None = _asked(
        None, "--max-memory", SIZE, "Of the device, at most: 20G, 800M. Default: what is free."
    )
    """Bytes of the device that may be used; None: what is free."""
    include_special: bool = _asked(
        False,
        "--include-special",
        SWITCH,
        "Fit and score special tokens and all positions too: what do they change?",
        of_session=False,
    )
    """Fit and score special tokens and the positions outside `positions` too, to see how much they change."""
    outliers: float | None = _asked(
        4.0,
        "--outliers",
        FACTOR,
        "Tokens with more than K times the median norm are counted apart.",
        shows_default=True,
    )
    """Tokens whose activation is longer than so many times the median are fitted, scored and told apart; None: none."""
    llama_gate: LlamaGate = _asked(
        "published",
        "--llama-gate",
        TEXT,
        "Llama Scope: its thresholds, or the 50 largest latents.",
        choices=get_args(LlamaGate),
        shows_default=True,
    )
    """Llama Scope: thresholds as its authors' loader applies them, or the 50 largest latents."""


OPTIONS: dict[str, Option] = {each.name: each.metadata["option"] for each in fields(TargetSpec)}
"""By field of the target, in the order of the help."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One headless run: which experiments, on what, how."""

    target: TargetSpec
    experiments: tuple[str, ...]
    params: dict[str, str] = field(default_factory=dict)
    """-p KEY=VALUE as typed; each experiment's Params takes those it knows."""
    profile: Profile = "careful"
    null: Null | None = None
    batch_size: int = 8
    """Contexts per forward pass. Changes speed and memory, not numbers."""
    shards: int = 1
    """Accumulate in this many separate parts and merge. Changes no number; workers share them."""
    ray: str | None = None
    """The Ray cluster whose workers share the passes: local, local:N, auto or an address; None: this process alone."""


@dataclass(frozen=True, kw_only=True)
class AppRequest:
    """What the app shall show, and on which session.

    `cli` and `tui` stand on one step and do not import each other: `inspector.__main__` passes the opener in.
    """

    target: TargetSpec
    theme: str | None = None
    """Name of a theme; None: the default, or what the environment says."""
    new_session: bool = False
    """Start a session of its own even if one for this target runs."""
    in_process: bool = False
    """View and engine in one process, for debugging."""
    session_id: str | None = None
    """Attach to this running session, whatever its target; None: the target decides."""
    prompts: tuple[str, ...] = ()
    """Texts to list beside the contexts; the first of them is what the app begins with."""


OpenApp = Callable[[AppRequest], int]
"""Shows the app until the user leaves it; returns the exit code."""


DEFAULT_TARGET = TargetSpec()


def command_of(spec: RunSpec, *experiments: str, ray: bool = False) -> str:
    """`dm-inspect run EXPERIMENT ...` that gives the same numbers; batch size and shards change none and are left out.

    Args:
        spec: of the run; its target's layers should be those of one result.
        experiments: ids of one or more experiments.
        ray: whether it says the cluster as well, which changes no number either.
    """
    words = ["dm-inspect", "run", *experiments, *target_words(spec.target)]
    for key, value in spec.params.items():
        words += ["-p", f"{key}={value}"]
    if spec.profile != "careful":
        words += ["--profile", spec.profile]
    if spec.null is not None:
        words += ["--null", spec.null]
    if ray and spec.ray is not None:
        words += ["--ray", spec.ray]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """The word for a shell. A name that is not UTF-8 comes as halves of surrogate pairs; it is spelled byte by byte."""
    try:
        word.encode()
    except UnicodeEncodeError:
        bytes_ = word.encode("utf-8", "surrogateescape")
        plain = frozenset(range(32, 127)) - {*b"\\'"}
        return "$'" + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in bytes_) + "'"
    return shlex.quote(word)


def target_words(target: TargetSpec) -> list[str]:
    """The options of TARGET that differ from the defaults."""
    words: list[str] = []
    for name, option in OPTIONS.items():
        value = getattr(target, name)
        if value == getattr(DEFAULT_TARGET, name):
            continue
        if option.notation is SWITCH:
            words.append(option.flag)
        elif option.notation is EACH:
            words += [word for each in value for word in (option.flag, each)]
        elif name == "layers_from":
            words += [option.flag, f"{value}:"]
        elif name == "layers":
            first, last = value[0], value[-1]
            words += [option.flag, str(first)] if first == last else ["--layers", f"{first}:{last + 1}"]
        else:
            words += [option.flag, option.notation.write(value)]
    return words


def without_saes(target: TargetSpec) -> TargetSpec:
    """The target without what another hook or suite takes the place of."""
    bare = TargetSpec()
    names = ("layers", "layers_from", "hook", "saes", "widths", "l0")
    return replace(target, **{name: getattr(bare, name) for name in names})


def another_model(target: TargetSpec, model: str) -> TargetSpec:
    """Another model with its own SAEs and text, computed as this one is."""
    kept = ("device", "dtype", "cache_dir", "offline", "max_memory", "seed")
    return TargetSpec(model=model, **{name: getattr(target, name) for name in kept})


def command_words(words: Sequence[str]) -> str:
    """`dm-inspect TARGET` for a shell, from the words of `target_words`."""
    return " ".join(map(_quoted, ("dm-inspect", *words)))


def target_of(words: Sequence[str]) -> TargetSpec:
    """The target that `target_words` spelled; options it does not know are passed over."""
    names = {option.flag: name for name, option in OPTIONS.items()}
    values: dict[str, Any] = {}  # as typed as the words are; each is made what its field holds
    given = list(words)
    while given:
        name = names.get(given.pop(0))
        if name is None:
            continue
        option = OPTIONS[name]
        if option.notation is SWITCH:
            values[name] = True
        elif not given:
            break
        elif option.notation is EACH:
            values[name] = (*values.get(name, ()), given.pop(0))
        else:
            values |= layers_asked(name, option.notation.read(given.pop(0)))
    return TargetSpec(**values)


def layers_asked(name: str, value: Any) -> dict[str, Any]:
    """The field that a value belongs to: of itself, but for `--layer N` and `--layers A:B`, which share two fields."""
    if name == "layers":
        return {"layers": (value,)}
    if name == "layers_from":
        start, stop = value
        return {"layers_from": start} if stop is None else {"layers": tuple(range(start, stop))}
    return {name: value}

"""Two ways to run a model: through TransformerBridge, and as transformers itself does.

The bridge knows every hook. It computes attention itself, keeps each pattern and calls something at every point, which
takes up to one and a half times as long as the model's own forward pass to the same layer. Most hooks are what one of
the model's modules gets or gives, so there the module is asked, in a copy of the tree of modules that shares all
weights, with torch's fused attention. What a hook means stays the bridge's: `agree` compares both before the quicker
way is used for a hook, what it reads and what a replacement does, and where they differ the bridge runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from inspector.errors import is_out_of_memory
from inspector.sources import hooks
from inspector.sources.precision import exact_products

ROWS = 256
"""Positions whose logits are made, and are in float32, at once: 256 x 256k entries are 0.3 GB."""
KEPT_BYTES = 1 << 28
"""Logits of one text that are made once and kept while they are looked at several times; more are made again."""
N_TOKENS = 32
"""On which the two ways are compared."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
"""Root mean square of the difference over that of the bridge's value. Float32 sums in another order stay below 3e-6
through thirty layers; bfloat16 rounds 65,536 times coarser, wherever either way stores a number."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a pass over one context predicts. Logits are made where they are asked for: a vocabulary of 262k takes 1 GB
    for a thousand tokens.
    """

    n: int
    """Positions."""
    make: Callable[[slice], Tensor]
    """Logits [n, v] of some positions, in the model's dtype."""

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """All positions in turn, the same ones together each time: products of other shapes round differently."""
        for first in range(0, self.n, ROWS):
            part = slice(first, min(first + ROWS, self.n))
            yield part, self.make(part).float()

    def kept(self) -> Outputs:
        """The same, to be looked at several times."""
        vocabulary = self.make(slice(0, 1)).shape[-1]
        if 4 * self.n * vocabulary > KEPT_BYTES:
            return self
        logits = self.all()
        return Outputs(n=self.n, make=logits.__getitem__)

    def at(self, position: int) -> Tensor:
        """Logits [v] float32 after one position."""
        return self.make(slice(position, position + 1))[0].float()

    def all(self) -> Tensor:
        """Logits [n, v] float32: n x v x 4 bytes."""
        return torch.cat([logits for _, logits in self.parts()])


@torch.inference_mode()
def loss_of(outputs: Outputs, tokens: Tensor) -> Tensor:
    """Nats to predict the next token: -log softmax(logits)[next], in float32, on the model's device.

    Never holds the logits of more than `ROWS` positions.

    Args:
        outputs: what was predicted.
        tokens: [t] int64, those it was predicted for.

    Returns:
        [t] float32; NaN at the last position, whose next token is not known.
    """
    made = []
    for part, logits in outputs.parts():
        following = tokens[part.start + 1 : part.stop + 1, None].to(logits.device, non_blocking=True)
        known = logits[: len(following)]
        made.append(known.logsumexp(dim=-1) - known.gather(-1, following)[:, 0])
    return torch.cat([*made, made[0].new_full((1,), float("nan"))])


class Way(Protocol):
    """One way to run the model."""

    points: Mapping[str, Any]
    """Hooks that it has by name, to use with `hooks.capture` and `hooks.replace`."""

    def run(self, tokens: Tensor) -> Outputs:
        """One forward pass of [1, t]."""

    def step(self, tokens: Tensor, cache: Any) -> tuple[Outputs, Any]:
        """The next tokens [1, n] of a sequence, and the cache for those after; None: it keeps none."""

    def parts(self) -> list[torch.nn.Module]:
        """Its layers, and the largest modules beside them that hold weights: what a pass goes through in turn."""


class Bridged:
    """A model as TransformerBridge runs it.

    Args:
        bridge: in evaluation mode.
    """

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge
        self.points: Mapping[str, Any] = bridge.hook_dict

    def run(self, tokens: Tensor) -> Outputs:
        """As `Way`.

        `output_attentions=False` is said each time: transformer-lens sets it to True in the model's configuration, and
        then every attention pattern is kept (1.4 GB for 1024 tokens of Gemma 2 9B).
        """
        exact_products()  # a library may have asked for less since the last pass
        logits: Tensor = self._bridge.forward(tokens, return_type="logits", output_attentions=False, use_cache=False)
        return Outputs(n=logits.shape[1], make=lambda part: logits[0, part])

    def step(self, tokens: Tensor, cache: Any) -> tuple[Outputs, Any]:
        """As `Way`."""
        exact_products()
        logits, cache = self._bridge.forward(
            tokens,
            return_type="logits_and_cache",
            output_attentions=False,
            use_past_kv_cache=True,
            past_key_values=cache,
        )
        return Outputs(n=logits.shape[1], make=lambda part: logits[0, part]), cache

    def parts(self) -> list[torch.nn.Module]:
        """As `Way`."""
        return _parts(self._bridge.original_model, set(self._bridge.blocks))


class Edge:
    """What one of the model's modules gets or gives, with as much of a hook point's interface as is used."""

    def __init__(self, module: torch.nn.Module, side: Literal["in", "out"]) -> None:
        self._module, self._side = module, side
        self._handles: list[Any] = []

    def add_hook(self, hook: Callable[[Tensor, Any], Tensor | None], *, level: int) -> None:
        """Call it with the value, and go on with what it returns."""

        def before(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            given = hook(args[0] if args else named["hidden_states"], self)
            if given is None:
                return None
            return ((given, *args[1:]), named) if args else (args, {**named, "hidden_states": given})

        def after(_: Any, __: Any, value: Any) -> Any:
            several = isinstance(value, tuple)
            given = hook(value[0] if several else value, self)
            return (given, *value[1:]) if several and given is not None else given

        if self._side == "in":
            self._handles.append(self._module.register_forward_pre_hook(before, with_kwargs=True))
        else:
            self._handles.append(self._module.register_forward_hook(after))

    def remove_hooks(self, *, dir: str, level: int) -> None:
        """All of them."""
        while self._handles:
            self._handles.pop().remove()


class _Given(torch.nn.Module):
    """Stands where a model's body was: gives what the body gave before, so that the rest of the model goes on."""

    hidden: Tensor

    def forward(self, *_: Any, **__: Any) -> _Body:
        return _Body(self.hidden)


class _Body:
    """What a body returns: its first value, and of all others None."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None


class Native:
    """A model as transformers runs it.

    Args:
        hf_model: as it was loaded, before a bridge puts its own modules into it.
    """

    def __init__(self, hf_model: Any) -> None:
        shared = {id(each): each for each in chain(hf_model.parameters(), hf_model.buffers())}
        model: Any = copy.deepcopy(hf_model, shared)
        # Gemma 2 has a soft cap inside of what a fused kernel computes.
        capped = getattr(model.config, "attn_logit_softcapping", None)
        if getattr(model, "_supports_sdpa", False) and capped is None:
            model.set_attn_implementation("sdpa")
        self._body: Any = model.base_model
        self._names = {module: name for name, module in hf_model.base_model.named_modules()}
        self._given = _Given()
        self._head: Any = copy.copy(model)  # softcap and scale of the logits, whatever there is, without the body
        self._head._modules = {**model._modules, model.base_model_prefix: self._given}
        self._layers: set[torch.nn.Module] = set()
        self.points: Mapping[str, Any] = {}

    def know(self, bridge: Any) -> None:
        """Find the hooks that are at the edge of one of the model's modules, once the bridge has wrapped those."""
        edges: dict[int, Edge] = {}
        layers = set(bridge.blocks)
        for component in bridge.modules():
            name = self._names.get(getattr(component, "original_component", None))
            if name:
                module = self._body.get_submodule(name)
                edges[id(component.hook_in)] = Edge(module, "in")
                edges[id(component.hook_out)] = Edge(module, "out")
                if component in layers:
                    self._layers.add(module)
        self.points = {name: edges[id(point)] for name, point in bridge.hook_dict.items() if id(point) in edges}

    def run(self, tokens: Tensor) -> Outputs:
        """As `Way`."""
        exact_products()
        return self._outputs(self._body(tokens, use_cache=False).last_hidden_state)

    def step(self, tokens: Tensor, cache: Any) -> tuple[Outputs, Any]:
        """As `Way`."""
        exact_products()
        made = self._body(tokens, use_cache=True, past_key_values=cache)
        return self._outputs(made.last_hidden_state), getattr(made, "past_key_values", None)

    def parts(self) -> list[torch.nn.Module]:
        """As `Way`."""
        return _parts(self._body, self._layers)

    def _outputs(self, hidden: Tensor) -> Outputs:
        @torch.inference_mode()
        def make(part: slice) -> Tensor:
            self._given.hidden = hidden[:, part]
            logits: Tensor = self._head(None, use_cache=False).logits
            del self._given.hidden
            return logits[0]

        return Outputs(n=hidden.shape[1], make=make)


def _parts(model: torch.nn.Module, layers: set[torch.nn.Module]) -> list[torch.nn.Module]:
    def within(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
        if module in layers or layers.isdisjoint(module.modules()):
            yield module
        else:
            for child in module.children():
                yield from within(child)

    return [each for each in dict.fromkeys(within(model)) if next(each.parameters(), None) is not None]


def agree(native: Native, bridged: Bridged, hook_name: str | None, tokens: Tensor, dtype: torch.dtype) -> bool:
    """Whether both ways see the same at a hook, and predict the same when it is changed.

    Args:
        native: the quicker way.
        bridged: what is right.
        hook_name: None: whether they predict the same at all.
        tokens: [1, t] on the model's device.
        dtype: in which the model computes.
    """
    if hook_name is not None and hook_name not in native.points:
        return False
    expected = _answers(bridged, hook_name, tokens)
    try:
        found = _answers(native, hook_name, tokens)
    except Exception as error:  # whatever an architecture does that was not thought of: the bridge can run it
        if is_out_of_memory(error):
            raise
        return False
    tolerance = TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])
    return all(_same(ours, theirs, tolerance) for ours, theirs in zip(found, expected, strict=True))


def _answers(way: Way, hook_name: str | None, tokens: Tensor) -> list[Tensor]:
    """The hook's value, and the logits that follow from another one."""
    if hook_name is None:
        return [way.run(tokens).all()]
    seen: list[Tensor] = []

    def other(value: Tensor) -> Tensor:
        seen.append(value)
        if not value.is_floating_point():
            return value
        noise = torch.randn(value.numel(), generator=torch.Generator().manual_seed(0)).view(value.shape)
        return value + noise.to(value) * value.float().square().mean().sqrt().to(value.dtype) / 4

    with hooks.change(way.points, hook_name, other):
        logits = way.run(tokens).all()
    return [seen[0], logits]


def _same(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether rounding explains what two values differ by."""
    if found.numel() != expected.numel():
        return False
    off = (found.flatten().double() - expected.flatten().double()).norm()
    return bool(off <= tolerance * expected.double().norm())

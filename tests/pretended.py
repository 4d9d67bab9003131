"""A CUDA device that is not there: what a GPU refuses is refused, what it waits for is counted, all on the CPU.

    with pretended() as gpu:
        ...  # torch.zeros(3, device="cuda:1"), or the whole program with `--device cuda:0`
    gpu.waits

Tensors asked for on a CUDA device are of a wrapper class whose device torch's C++ believes in, so that every check
inside torch behaves as with a real one; their values are tensors of the CPU. Each operator comes by at `_run`, which
refuses a mix of devices by CUDA's rules, counts, and computes. Autograd runs on the values, because its engine would
look for a driver. It says nothing about speed, and knows no kernel of CUDA's own. Name the device with its number:
which one "cuda" is, torch would ask the driver.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, patch

import safetensors
import safetensors.torch
import torch
from torch.utils._device import _device_constructors

aten, _CPP = torch.ops.aten, torch._C.TensorBase
INDEXING = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
MOVES = {"copy_", "_to_copy", "_foreach_copy_", "set_", "_has_compatible_shallow_copy_type"}
WITH_SCALARS = {"where", "masked_fill", "masked_fill_", "fill_", "lerp", "clamp"}
"""Beside pointwise operators: those that take a tensor without dimensions from the CPU."""
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_consecutive", "unique_dim", "equal",
    "bincount", "is_nonzero", "repeat_interleave", "_linalg_eigh", "_linalg_svd", "linalg_qr", "linalg_cholesky_ex",
    "linalg_inv_ex", "_linalg_solve_ex", "linalg_lstsq", "histc",
}  # fmt: skip
"""Operators whose result, or its size, the host has to know before it goes on."""
FACTORIES = (
    "empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step", "eye", "eye.m", "randperm",
    "linspace", "full", "zeros", "ones", "rand", "randn", "randint", "randint.low", "scalar_tensor",
)  # fmt: skip


@dataclass
class Gpu:
    """What was seen of the device, by the line of the program that asked for it."""

    n_devices: int
    free: int
    waits: Counter[str] = field(default_factory=Counter)
    """The host stood still until the device had caught up."""
    allocations: int = 0
    fails_at: int | None = None
    """The allocation at which memory runs out; 0 is the first. The next one is given."""
    asking: list[str] | None = None
    """If it is a list: gets the line behind each allocation."""

    def wait(self, what: str) -> None:
        """Count one."""
        self.waits[f"{_line()} {what}"] += 1

    def allocate(self) -> None:
        """Give memory, or say that there is none."""
        number, self.allocations = self.allocations, self.allocations + 1
        if self.asking is not None:
            self.asking.append(_line())
        if number == self.fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")


_GPU: list[Gpu] = []
"""The one that is there."""


def _line() -> str:
    """The innermost line of the program itself."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/inspector/" in name:
            return f"{name.rpartition('/inspector/')[2]}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "outside"


class Tensor(torch.Tensor):
    """A tensor on the pretended device."""

    elem: torch.Tensor
    """Its values."""

    @staticmethod
    def __new__(cls, elem: torch.Tensor, device: torch.device) -> Tensor:
        with torch.inference_mode(elem.is_inference()):  # a view is what its base is
            made = torch.Tensor._make_wrapper_subclass(
                cls, elem.size(), strides=elem.stride(), storage_offset=elem.storage_offset(), dtype=elem.dtype,
                device=device,
            )  # fmt: skip
        made.elem = elem
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    # Modules move such a tensor as a whole, and not its storage.
    def __tensor_flatten__(self) -> tuple[list[str], torch.device]:
        return ["elem"], self.device

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], device: torch.device, size: Any, stride: Any) -> Tensor:
        return Tensor(inner["elem"], device)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        made = Tensor(self.elem.detach().clone(), self.device).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made._is_param = True
        memo[id(self)] = made
        return made

    # What C++ would do without asking the dispatcher.
    def tolist(self) -> Any:
        return self.cpu().tolist()

    def new_tensor(self, data: Any, **more: Any) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": self.device, **more})

    # Autograd is that of the values.
    @property
    def requires_grad(self) -> bool:
        return self.elem.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.elem.requires_grad_(value)

    def requires_grad_(self, value: bool = True) -> Tensor:
        self.elem.requires_grad_(value)
        return self

    @property
    def grad(self) -> Any:
        return None if self.elem.grad is None else Tensor(self.elem.grad, self.device)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self.elem.grad = None if value is None else value.elem

    def backward(self, gradient: Any = None, **more: Any) -> None:
        self.elem.backward(_bare(gradient), **more)


def _bare(value: Any) -> Any:
    return value.elem if isinstance(value, Tensor) else value


def _named(device: Any) -> torch.device | None:
    """With its number, or a refusal."""
    device = None if device is None else torch.device(device)
    if device is None or device.type != "cuda":
        return device
    if (device.index or 0) >= _GPU[-1].n_devices:
        raise RuntimeError("CUDA error: invalid device ordinal")
    return torch.device("cuda", device.index or 0)


@dataclass(frozen=True)
class _Operator:
    """What is asked of every operator, found out once."""

    name: str
    is_composite: bool
    makes: bool
    is_elementwise: bool


@cache
def _operator(func: Any) -> _Operator:
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    return _Operator(
        name=name,
        is_composite=torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"),
        makes=any(each.alias_info is None for each in schema.returns) and name not in ("_local_scalar_dense", "equal"),
        is_elementwise=torch.Tag.pointwise in func.tags or name in WITH_SCALARS,
    )


def _tensors(*given: Any) -> Iterator[torch.Tensor]:
    for each in given:
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, (list, tuple)):
            yield from _tensors(*each)


def _mapped(value: Any, of: Callable[[Any], Any]) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(each, of) for each in value)
    return of(value)


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operator of which at least one tensor is on the device, or its result shall be."""
    operator = _operator(func)
    if operator.is_composite:
        found = func.decompose(*args, **kwargs)  # inference mode hands such operators over whole
        if found is not NotImplemented:
            return found
    gpu, name = _GPU[-1], operator.name
    given = list(_tensors(*args, *kwargs.values()))
    ours = [each for each in given if isinstance(each, Tensor)]
    for each in ours:
        if each.is_leaf and _CPP.requires_grad.__get__(each):  # a factory was asked for it, which told C++
            _CPP.requires_grad.__set__(each, False)
            each.elem.requires_grad_()
    _require_one_device(func, operator, args, given, ours)
    indices = args[1] if name in INDEXING else ()
    if name in WAITS:
        gpu.wait(name)
    if any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in indices):
        gpu.wait("mask as an index")
    if any(each is not None and not isinstance(each, Tensor) for each in indices):
        gpu.wait("index on the host")
    asked = _named(kwargs.get("device"))
    device = asked or (args[0].device if name in INDEXING or name == "copy_" else ours[0].device)
    source = args[1].device if name == "copy_" else args[0].device if name == "_to_copy" else device
    if source != device:
        hidden = source.type == "cpu" and (kwargs.get("non_blocking") or args[2:3] == (True,))
        if not hidden:
            gpu.wait(f"copy from {source.type} to {device.type}")
    if operator.makes and device.type == "cuda":
        gpu.allocate()
    bare = {name: _mapped(each, _bare) for name, each in kwargs.items() if name not in ("device", "pin_memory")}
    if asked is not None:
        bare["device"] = torch.device("cpu")
    result = _with_autograd(func, _mapped(args, _bare), bare)
    for each in ours:
        if each.elem.shape != each.shape:
            raise NotImplementedError(f"{func} changed the shape of a tensor in place")
    return _wrapped(result, func._schema, args, kwargs, device)


def _require_one_device(
    func: Any, operator: _Operator, args: Any, given: list[torch.Tensor], ours: list[Tensor]
) -> None:
    """Refuse what CUDA's kernels refuse."""
    if operator.name in MOVES:
        return
    on_host = [each for each in given if not isinstance(each, Tensor)]
    if operator.name in INDEXING and isinstance(args[0], Tensor):  # indices may come from the host
        on_host = [each for each in _tensors(args[2:3]) if not isinstance(each, Tensor) and each.dim()]
    elif operator.name not in INDEXING and operator.is_elementwise:
        written = args[0] if func._schema.is_mutable else None
        on_host = [each for each in on_host if each.dim() or each is written]
    found = sorted({str(each.device) for each in ours})
    if len(found) > 1 or on_host:
        shapes = [list(each.shape) for each in on_host]
        raise RuntimeError(f"Tensors on {', '.join(found)} and {shapes} on the CPU in {func} at {_line()}")


def _with_autograd(func: Any, args: Any, kwargs: Any) -> Any:
    """The operator on the values; where one of them has a gradient, as if they had never been wrapped."""
    if torch.is_inference_mode_enabled() or not any(each.requires_grad for each in _tensors(*args, *kwargs.values())):
        return func(*args, **kwargs)
    if func is aten._embedding_bag_forward_only.default:  # chosen in C++, to which nothing has a gradient
        func = aten._embedding_bag.default
    without = torch._C._dispatch_tls_local_exclude_set()
    for key in (torch._C.DispatchKey.AutogradFunctionality, torch._C.DispatchKey.ADInplaceOrView):
        without = without.remove(key)
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), without):
        return func(*args, **kwargs)


def _wrapped(result: Any, schema: Any, args: Any, kwargs: Any, device: torch.device) -> Any:
    """What came out, on the device; an argument that was written is that argument."""

    def of(value: Any, told: Any) -> Any:
        if told.alias_info is not None and told.alias_info.is_write:
            for i, argument in enumerate(schema.arguments):
                alias = argument.alias_info
                if alias is not None and alias.before_set & told.alias_info.before_set:
                    return args[i] if i < len(args) else kwargs.get(argument.name)
        if device.type != "cuda":
            return value
        return _mapped(value, lambda each: Tensor(each, device) if isinstance(each, torch.Tensor) else each)

    if isinstance(result, tuple):
        return tuple(of(value, told) for value, told in zip(result, schema.returns, strict=True))
    return of(result, schema.returns[0]) if schema.returns else result


def _factory(op: Any) -> Any:
    def made(*args: Any, **kwargs: Any) -> Tensor:
        device = _named(kwargs.pop("device", "cuda"))
        assert device is not None
        kwargs.pop("pin_memory", None)
        _GPU[-1].allocate()
        return Tensor(op(*args, device="cpu", **kwargs), device)

    return made


def _empty(plain: Any, pinned: set[int]) -> Any:
    """Memory of the host that copies to the device need not wait for is remembered by where it is."""

    def empty(*size: Any, pin_memory: bool = False, **more: Any) -> torch.Tensor:
        made: torch.Tensor = plain(*size, **more)
        if pin_memory:
            pinned.add(made.untyped_storage().data_ptr())
        return made

    return empty


def _tensor(plain: Any) -> Any:
    """Python's numbers become a tensor here and are moved."""

    def tensor(data: Any, *, device: Any = None, **more: Any) -> torch.Tensor:
        moves = device is not None and torch.device(device).type == "cuda"
        made: torch.Tensor = plain(data, device="cpu" if moves else device, **more)
        return made.to(device) if moves else made

    return tensor


def _data(base: Any) -> property:
    """`.data`, which torch cannot set to a tensor of another class."""

    def put(self: torch.Tensor, value: torch.Tensor) -> None:
        if not isinstance(self, Tensor) and not isinstance(value, Tensor):
            base.__set__(self, value)
            return
        fresh: Any = (
            Tensor(value.elem.detach(), value.device) if isinstance(value, Tensor) else value.detach().view_as(value)
        )
        if isinstance(self, torch.nn.Parameter):
            fresh = torch.nn.Parameter(fresh, requires_grad=self.requires_grad)
        torch.utils.swap_tensors(self, fresh)

    return property(lambda self: self.detach() if isinstance(self, Tensor) else base.__get__(self), put)


def _product(plain: Any) -> Any:
    """Matrix times vector as matrix products: torch's own way changes a shape in place."""

    def product(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor) and isinstance(b, Tensor) and {a.dim(), b.dim()} == {1, 2}:
            return torch.mm(a[None], b)[0] if a.dim() == 1 else torch.mm(a, b[:, None])[:, 0]
        return plain(a, b)

    return product


def _grad(plain: Any) -> Any:
    def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, **more: Any) -> Any:
        found = plain(*(_mapped(each, _bare) for each in (outputs, inputs, grad_outputs)), **more)
        first = inputs if isinstance(inputs, torch.Tensor) else inputs[0]
        return tuple(Tensor(each, first.device) for each in found) if isinstance(first, Tensor) else found

    return grad


def _applying(plain: Any) -> Any:
    """A function with a gradient of its own, which counts among the values alone: what it computes is not looked at."""

    def apply(cls: Any, *args: Any, **more: Any) -> Any:
        device = next((each.device for each in _tensors(*args) if isinstance(each, Tensor)), None)
        if device is None:
            return plain(cls, *args, **more)
        found = plain(cls, *(_mapped(each, _bare) for each in args), **more)
        return _mapped(found, lambda each: Tensor(each, device) if isinstance(each, torch.Tensor) else each)

    return classmethod(apply)


def _saving(plain: Any) -> Any:
    """It copies a tensor of a device to the CPU on its own."""
    return lambda tensors, *given, **more: plain({name: _bare(each) for name, each in tensors.items()}, *given, **more)


class _SafeOpen:
    """safetensors puts tensors on a device without asking torch's dispatcher."""

    def __init__(self, filename: Any, framework: str = "pt", device: Any = "cpu", **_: Any) -> None:
        self._file, self._device = safetensors.safe_open(filename, framework=framework), device

    def __enter__(self) -> _SafeOpen:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def get_tensor(self, name: str) -> torch.Tensor:
        return self._file.get_tensor(name).to(self._device)


@contextmanager
def _guarded() -> Iterator[None]:
    """torch without CUDA cannot make a device the current one; the guard of `meta` will do, which does nothing."""
    library = next((Path(torch.__file__).parent / "lib").glob("libc10.*"))
    guards = (ctypes.c_void_p * 15).in_dll(ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE")
    cuda, meta = 1, 14  # of c10::DeviceType
    before, guards[cuda] = guards[cuda], guards[meta]
    try:
        yield
    finally:
        guards[cuda] = before


@contextmanager
def pretended(n_devices: int = 2, free: int = 80 * 10**9) -> Iterator[Gpu]:
    """This process has so many CUDA devices with so many bytes free, for as long as the `with` lasts."""
    from sae_lens.loading import pretrained_sae_loaders

    gpu = Gpu(n_devices=n_devices, free=free)
    _GPU.append(gpu)
    told: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: n_devices,
        "mem_get_info": lambda device=None: (gpu.free, gpu.free),
        "is_bf16_supported": lambda *_, **__: True,
        **dict.fromkeys(("memory_reserved", "memory_allocated"), lambda device=None: 0),
        "stream": lambda _: nullcontext(),
        **dict.fromkeys(("current_stream", "Stream", "Event"), lambda *_, **__: MagicMock()),
        **dict.fromkeys(("_lazy_init", "_lazy_call", "empty_cache", "synchronize"), lambda *_, **__: None),
    }
    _device_constructors()  # remembered at first use: has to be torch's own, or models are not built on "meta"
    pinned: set[int] = set()
    library = torch.library.Library("aten", "IMPL", "CUDA")
    for each in FACTORIES:
        base, _, overload = each.partition(".")
        library.impl(each, _factory(getattr(getattr(aten, base), overload or "default")))
    torch._C._set_only_lift_cpu_tensors(True)  # a list as an index is made on the CPU, then moved
    try:
        with (
            _guarded(),
            patch.multiple(torch.cuda, **told),
            patch.object(torch.Tensor, "is_pinned", lambda self, *_: self.untyped_storage().data_ptr() in pinned),
            patch.object(torch, "empty", _empty(torch.empty, pinned)),
            patch.object(torch.Tensor, "data", _data(_CPP.data)),
            patch.object(torch.Tensor, "__matmul__", _product(torch.Tensor.__matmul__)),
            patch.object(torch, "matmul", _product(torch.matmul)),
            patch.object(torch, "tensor", _tensor(torch.tensor)),
            patch.object(torch.autograd, "grad", _grad(torch.autograd.grad)),
            patch.object(torch.autograd.Function, "apply", _applying(torch.autograd.Function.apply.__func__)),
            patch.object(safetensors.torch, "safe_open", _SafeOpen),
            patch.object(pretrained_sae_loaders, "safe_open", _SafeOpen),
            patch.object(safetensors.torch, "_flatten_as_ptr", _saving(safetensors.torch._flatten_as_ptr)),
        ):
            yield gpu
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        library._destroy()
        _GPU.pop()

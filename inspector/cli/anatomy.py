"""`dm-inspect anatomy`: why an SAE fails on one token, as numbers with their controls."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inspector.cli.lazy import Command
from inspector.cli.narration import batch_size_option, follow, quiet_option
from inspector.cli.opening import opened, prompt_file_option, prompts_of
from inspector.cli.output import print_json, print_text
from inspector.cli.target_options import some_target_options
from inspector.drawing.safe_text import visible
from inspector.drawing.terminal_figures import render_table
from inspector.errors import UsageError, nearest
from inspector.events import Loading
from inspector.spec import OPTIONS

if TYPE_CHECKING:
    from inspector.events import Event
    from inspector.session.cards import AnatomyCard, SimilarCard
    from inspector.session.protocol import GetAnatomy, SessionMessage
    from inspector.session.texts import Texts
    from inspector.sources.target import Loaded
    from inspector.spec import TargetSpec

Answer = TypeVar("Answer", bound="SessionMessage")

every_sae_options = some_target_options(*(name for name in OPTIONS if name != "saes"))
"""TARGET without --sae, which here names the SAE that is looked at: it is held against the others of its hook."""


@click.command(
    cls=Command,
    epilog="""\b
Examples:
  dm-inspect anatomy --context 3
  dm-inspect anatomy --context 3 --position 41 --sae layer_3/resid/width_256/l0_16 --json
  dm-inspect anatomy --prompt 'import numpy as np' --position 4 --l0 16
""",
)
@click.option("--context", type=click.IntRange(min=1), metavar="N", help="Which context, as on the screen: from 1.")
@click.option("--prompt", metavar="TEXT", help="A text of yours instead.")
@prompt_file_option
@click.option(
    "--position",
    type=click.IntRange(min=0),
    metavar="M",
    help="Which token, as on the screen: 0 is the first. Default: the scored one with the largest nonlinear error.",
)
@click.option("--sae", "sae_id", metavar="ID", help="Whose error. Default: one of middle width.")
@click.option("--wider", metavar="ID", help="The SAE that may take it up. Default: the widest of the nearest L0.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with every number.")
@batch_size_option
@quiet_option
@every_sae_options
def anatomy(
    context: int | None,
    prompt: str | None,
    prompt_files: tuple[Path, ...],
    position: int | None,
    sae_id: str | None,
    wider: str | None,
    as_json: bool,
    batch_size: int,
    quiet: bool,
    target: TargetSpec,
) -> None:
    """Show why an SAE fails on a token.

    What its nonlinear error there looks like: from width to width, in the next-token distribution, along decoder
    directions; which latents of a wider SAE take it up; which tokens of the contexts fail alike. Each number stands
    beside what chance would give.
    """
    prompts = prompts_of(prompt, prompt_files)
    if (context is None) == (not prompts) or len(prompts) > 1:
        raise UsageError("Either --context N, --prompt TEXT or --prompt-file FILE says which text. Give one of them.")
    work = _cards(target, context, "".join(prompts), position, sae_id, wider, batch_size)
    loaded, asked, card, similar = follow(work, quiet=quiet)
    from inspector.session.card_tables import anatomy_sections, similar_section

    if as_json:
        from msgspec import to_builtins

        place = {"source": asked.source, "context": asked.context, "position": asked.position, "sae": asked.sae_id}
        about = {"model": loaded.model.name, "hook_name": loaded.hook_name, **place}
        print_json({**about, **to_builtins(card), "similar": to_builtins(similar)})
        return
    where = "the prompt" if context is None else f"context {context}"
    print_text(f"{where}, position {asked.position}: '{visible(card.token)}' · SAE {asked.sae_id}\n")
    for section in [*anatomy_sections(card, asked.sae_id), similar_section(similar, card.token)]:
        print_text(render_table(section.table))
    if card.wider is None:
        print_text(card.why_no_wider)


def _cards(
    target: TargetSpec,
    context: int | None,
    prompt: str,
    position: int | None,
    sae_id: str | None,
    wider: str | None,
    batch_size: int,
) -> Generator[Event, None, tuple[Loaded, GetAnatomy, AnatomyCard, SimilarCard]]:
    """What a session answers, from maps that are fitted here."""
    loaded = yield from opened(target)
    from inspector import runner
    from inspector.session.anatomy import anatomy_of
    from inspector.session.protocol import GetAnatomy, GetSimilar
    from inspector.session.similar import Similar
    from inspector.session.texts import Texts
    from inspector.statistics.token_table import fitted_maps

    sae_id = chosen_sae(loaded, sae_id)
    runner.require_enough(loaded, loaded.plan)
    texts = Texts(loaded)
    fit = texts.fits["excluded"]
    fit.maps, fit.epoch = (yield from fitted_maps(loaded, batch_size)), 1
    place = _place(texts, context, prompt, sae_id, position)
    asked = GetAnatomy(**place, wider=wider or "")
    found = yield from last_of(anatomy_of(texts, 0, asked), "the token's error")
    alike = yield from last_of(Similar(texts).answer(0, GetSimilar(**place)), "tokens with a similar error")
    return loaded, asked, found.card, alike.card


def chosen_sae(loaded: Loaded, sae_id: str | None) -> str:
    """The SAE of a name; None: one of middle width.

    Raises:
        UsageError: it is not among the target's.
    """
    ids = [sae.ref.sae_id for sae in loaded.saes]
    if sae_id is not None and sae_id not in ids:
        raise UsageError(f"--sae {sae_id} is not among the target's SAEs.{nearest(sae_id, ids)}")
    return sae_id or ids[len(ids) // 2]


def last_of(steps: Iterator[Answer | None], what: str) -> Generator[Event, None, Answer]:
    """The answer that a session would send after these steps, with an event per step."""
    for done, answer in enumerate(steps):
        if answer is not None:
            return answer
        yield Loading(what=what, done=done, total=done + 1)  # how many steps there will be is not known
    raise AssertionError("the last step is the answer")


def _place(texts: Texts, context: int | None, prompt: str, sae_id: str, position: int | None) -> dict[str, Any]:
    """The token that is meant, as questions name it."""
    from inspector.session.frames import unpack
    from inspector.session.protocol import AnalysePrompt, GetContext

    n_contexts = len(texts.loaded.contexts.token_ids)
    if context is not None and context > n_contexts:
        raise UsageError(f"--context {context} is beyond the last of {n_contexts:,} contexts. Give a smaller one.")
    scores = (
        texts.prompt(0, AnalysePrompt(text=prompt))
        if context is None
        else texts.context(0, GetContext(context=context - 1))
    )
    if position is None:
        row = [sae.ref.sae_id for sae in texts.loaded.saes].index(sae_id)
        norms = unpack(scores.saes[row].nonlinear_error_norm)
        scored = [place for place, letter in enumerate(scores.split) if letter in "th"]
        if not scored:
            raise UsageError("No token of the text is scored. Name one with --position.")
        position = max(scored, key=lambda place: norms[place])
    elif position >= len(scores.token_ids):
        raise UsageError(f"--position {position} is beyond the text of {len(scores.token_ids):,} tokens. Give less.")
    return {"source": scores.source, "context": scores.context, "position": position, "sae_id": sae_id}

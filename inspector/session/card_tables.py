"""Cards as tables, for commands and screens alike: titles, columns, and what to know before reading a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inspector.drawing.figures import Cell, Column, Table
from inspector.drawing.lines import cut
from inspector.drawing.safe_text import visible
from inspector.drawing.scales import number_text
from inspector.options import width_label
from inspector.session.cards import Bin
from inspector.session.frames import unpack
from inspector.session.protocol import GetLatent, Hit

if TYPE_CHECKING:
    from inspector.session.cards import AnatomyCard, LatentExample, Moved, Neighbour, SimilarCard, Splice, Wider
    from inspector.session.protocol import LatentView

N_NEAREST = 5
N_TAKEN_UP = 12
LONGEST_TOKEN = 12
LONGEST_TEXT = 42
N_MOST = 8
"""Next tokens of a direction."""
N_BARS = 10
"""Of a histogram."""
BAR = 20
"""Columns of the longest bar."""
NO_GAP = 1e-4
"""By how much float32 may miss a sum of 1."""
DENSE = 0.1
"""Active at a larger share of tokens: a dense latent."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table, and where its rows lead."""

    table: Table
    goes: tuple[GetLatent | Hit, ...] = ()
    """One per row; empty: they lead nowhere."""


def anatomy_sections(card: AnatomyCard, sae_id: str) -> list[Section]:
    """What one SAE's nonlinear_error at a token is like.

    Args:
        card: the answer.
        sae_id: the SAE it is about.
    """
    narrow = next(each for each in card.widths if each.sae_id == sae_id)
    sections = [Section(table=_widths(card, sae_id)), Section(table=_splices(card))]
    sections += [Section(table=_moved(each)) for each in card.splices if each.missing == "nonlinear_error"]
    if card.wider is not None:
        sections.append(_taken_up(card.wider, width_label(narrow.d_sae)))
    return [*sections, Section(table=_explained(card)), Section(table=_nearest(card))]


def _widths(card: AnatomyCard, sae_id: str) -> Table:
    place = [each.sae_id for each in card.widths].index(sae_id)
    rows = tuple(
        (
            f"{width_label(each.d_sae)}{' (this one)' if each.sae_id == sae_id else ''}",
            "?" if each.nominal_l0 is None else each.nominal_l0,
            each.sae_error,
            each.linear_error,
            each.nonlinear_error,
            *map(_bounded, (each.parts_cosine, each.cosines[place], each.elsewhere)),
        )
        for each in card.widths
    )
    titles = ("‖error‖", "‖linear‖", "‖nonlin‖", "cos parts", "same way", "chance")
    columns = (
        Column(title="width"),
        Column(title="L0", digits=0),
        *(Column(title=title, digits=2) for title in titles),
    )
    return Table(
        title="The error, from width to width",
        columns=columns,
        rows=rows,
        note=f"In the units of x, whose norm here is {number_text(card.x_norm)}. cos parts: cosine of linear_error and "
        "nonlinear_error; they are not orthogonal on one token, so their squares do not add up to the error's. same "
        "way: cosine of the width's nonlinear_error with this SAE's. chance: this SAE's here with the width's at the "
        "other scored tokens, on average.",
    )


def _splices(card: AnatomyCard) -> Table:
    rows = tuple(
        (each.arm, each.missing or "nothing", each.norm, each.kl, *map(_told, (each.random_kl, each.loss)))
        for each in card.splices
    )
    following = "" if card.following is None else f" of {_token(card.following)}, which follows"
    return Table(
        title="What it does to the next token",
        columns=(
            Column(title="in x's place"),
            Column(title="left out"),
            Column(title="its norm", digits=2),
            Column(title="KL", digits=4),
            Column(title="random", digits=4),
            Column(title="loss", digits=3),
        ),
        rows=rows,
        note="At this token alone, in nats. KL of the model's distribution from the spliced one; random: the mean when "
        f"a random direction of the same norm is left out instead; loss{following}. x itself has to change nothing.",
    )


def _moved(splice: Splice) -> Table:
    def cells(moved: Sequence[Moved], place: int) -> tuple[Cell, ...]:
        if place >= len(moved):
            return ("", "", "", "")
        each = moved[place]
        return (_token(each.token), f"{each.change:+.2f}", f"{each.before:.2%}", f"{each.after:.2%}")

    titles, n = ("token", "logit", "before", "with"), max(len(splice.up), len(splice.down))
    return Table(
        title="Next tokens that rise and fall most without nonlinear_error (Sae + linear)",
        columns=tuple(Column(title=title) for title in (*titles, *titles)),
        rows=tuple((*cells(splice.up, i), *cells(splice.down, i)) for i in range(n)),
        note="Of those with a probability of at least 0.01% before or with it; less the mean change of all logits.",
    )


def _taken_up(wider: Wider, narrow: str) -> Section:
    shown = wider.latents[:N_TAKEN_UP]
    rows = tuple(
        (each.index, each.activation, *map(_bounded, (each.share, each.share_of_error, each.cosine)),
         each.known.index, _bounded(each.known.cosine))
        for each in shown
    )  # fmt: skip
    width = visible(wider.sae_id)
    columns = (
        Column(title="latent"),
        Column(title="activation", digits=2),
        *(Column(title=title, digits=2) for title in ("share", "of error", "cosine")),
        Column(title=f"in {narrow}"),
        Column(title="cosine ", digits=2),
    )
    gap = "" if abs(wider.gap) < NO_GAP else f", but for {wider.gap:+.2g}"
    note = (
        "share: of the squared norm of nonlinear_error, activation x (decoder row · nonlinear_error) / norm². All "
        f"{wider.n_active} active latents together {wider.of_latents:+.2f}, the wider SAE's bias less what the "
        f"narrower one had already {wider.rest:+.2f}, left in the wider SAE's own error {wider.left:+.2f}: in sum 1"
        f"{gap}. Shares are signed, since directions are not orthogonal. In the span of the active rows lies "
        f"{wider.explained:.1%} of it; of a random vector {wider.explained_random:.1%}, and with as many "
        f"latents that are not active {wider.explained_others:.1%}. in {narrow}: the nearest latent there; a small "
        "cosine is a direction that it does not have."
    )
    return Section(
        table=Table(title=f"Latents of {width} that take it up", columns=columns, rows=rows, note=note),
        goes=tuple(GetLatent(sae_id=wider.sae_id, index=each.index) for each in shown),
    )


def _explained(card: AnatomyCard) -> Table:
    rows = tuple(
        (visible(each.sae_id) if share is each.shares[0] else "", share.n,
         *map(_bounded, (share.share, share.random, share.random_most, share.others)))
        for each in card.directions for share in each.shares
    )  # fmt: skip
    titles = ("explained", "random", "most of 20", "other tokens")
    return Table(
        title="How much of it lies along a few decoder directions",
        columns=(Column(title="SAE"), Column(title="n"), *(Column(title=title, digits=2) for title in titles)),
        rows=rows,
        note="Share of its squared norm that the first n directions of a greedy orthogonal fit explain; of random "
        "vectors of equal norm, for which directions are chosen anew, the mean and the largest; of the nonlinear_error "
        "of other tokens of the text. No more than random: it lies along no few latents' directions.",
    )


def _nearest(card: AnatomyCard) -> Table:
    return Table(
        title="The nearest decoder directions",
        columns=(Column(title="SAE"), Column(title="latents and cosines"), Column(title="random", digits=2)),
        rows=tuple(
            (visible(each.sae_id), _list(each.nearest[:N_NEAREST]), each.random_cosine) for each in card.directions
        ),
        note="Of either sign. random: the largest cosine in magnitude that a random vector finds, on average.",
    )


def similar_section(card: SimilarCard, token: str) -> Section:
    """Tokens of the contexts with the most similar nonlinear_error; `token`: the one they are similar to."""
    rows = tuple(
        (each.context + 1, each.position, each.cosine, each.norm, _around(each.before, each.token, each.after))
        for each in card.found
    )
    of_all = "" if card.n_searched == card.n_scored else f" of {card.n_scored:,}"
    note = (
        f"Exact, among the {card.n_searched:,} scored tokens{of_all} that are kept, at most one per context. A random "
        f"vector finds {card.random_cosine:.2f} on average. {card.n_same} of {len(card.found)} are the same token "
        f"{_token(token)}; {card.share_same:.2%} of those searched are."
    )
    columns = (
        Column(title="context"),
        Column(title="position"),
        Column(title="cosine", digits=2),
        Column(title="norm", digits=1),
        Column(title="text"),
    )
    return Section(
        table=Table(title="Tokens with the most similar nonlinear_error", columns=columns, rows=rows, note=note),
        goes=tuple(Hit(context=each.context, position=each.position) for each in card.found),
    )


def latent_facts(view: LatentView) -> list[str]:
    """How often, how much of the error, where to read more: a line each."""
    often = f"active at {100 * view.density:.3g}% of {view.n_tokens:,} tokens"
    if view.density > DENSE:
        often += ", a dense latent"
    card = view.card
    lines = [f"{often} · largest activation {number_text(view.max_activation)}"]
    if card.error_share is not None and card.error_share_others is not None:
        lines.append(
            f"{card.error_share:.2%} of the SAE's squared error lies along its direction (other latents "
            f"{card.error_share_others:.2%}, a random direction {card.error_share_random:.2%})"
        )
    if view.link:
        lines.append(visible(view.link))
    return lines


def latent_tables(view: LatentView, *, own: bool = True) -> list[Table]:
    """A latent's histogram, its logits, and its likes in other widths; `own`: and in its own SAE."""
    card, tables = view.card, []
    if card.histogram:
        bins = _merged(card.histogram)
        most = max(each.n for each in bins)
        tables.append(
            Table(
                title="How strong it is where it is active",
                columns=(Column(title="activation"), Column(title="tokens"), Column(title="of the most")),
                rows=tuple(
                    (f"{number_text(each.low)} to {number_text(each.high)}", each.n, "█" * -(-BAR * each.n // most))
                    for each in bins
                ),
            )
        )
    if card.top:
        tables.append(
            Table(
                title="Next tokens that its direction favours and disfavours",
                columns=tuple(Column(title=title, digits=2) for title in ("favours", "logit", "disfavours", "logit")),
                rows=tuple(
                    (_token(up.token), up.logit, _token(down.token), down.logit)
                    for up, down in zip(card.top[:N_MOST], card.bottom[:N_MOST], strict=True)
                ),
                note="Past all later blocks: the decoder row through the final norm, as if the stream held nothing "
                "else (its weight counts, the row's length does not), and the unembedding.",
            )
        )
    rows: list[tuple[Cell, ...]] = [(visible(view.sae_id), _list(view.neighbours[:N_NEAREST]), "")] if own else []
    rows += [(visible(each.sae_id), _list(each.nearest), each.random_cosine) for each in card.across]
    if rows:
        tables.append(
            Table(
                title="The nearest decoder directions" + (", in other widths" if not own else ""),
                columns=(Column(title="SAE"), Column(title="latents and cosines"), Column(title="random", digits=2)),
                rows=tuple(rows),
                note="random: the largest cosine that a random direction finds there, on average."
                if card.across
                else "",
            )
        )
    return tables


def _merged(bins: Sequence[Bin]) -> list[Bin]:
    """Neighbours in one, twice, four times, ... as wide, until there are no more than N_BARS."""
    while len(bins) > N_BARS:
        pairs = [bins[i : i + 2] for i in range(0, len(bins), 2)]
        bins = [Bin(low=pair[0].low, high=pair[-1].high, n=sum(each.n for each in pair)) for pair in pairs]
    return list(bins)


def example_tables(view: LatentView) -> list[Table]:
    """Its strongest examples, and those drawn at random with the quantile of each."""
    groups = (
        ("The strongest examples, one per context", view.examples),
        (f"Examples from {view.card.n_drawn} drawn at random, by quantile of activation", view.card.drawn),
    )
    columns = tuple(Column(title=title, digits=2) for title in ("context", "position", "activation", "text"))
    return [Table(title=title, columns=columns, rows=tuple(map(_example, each))) for title, each in groups if each]


def _example(example: LatentExample) -> tuple[Cell, ...]:
    at = example.position - example.start
    activation = f"{unpack(example.activations)[at]:.2f}"
    if example.quantile is not None:
        activation += f" ({100 * example.quantile:.0f}%)"
    before, after = "".join(example.tokens[:at]), "".join(example.tokens[at + 1 :])
    return (example.context + 1, example.position, activation, _around(before, example.tokens[at], after))


def _bounded(value: float | None) -> Cell:
    """A cosine or a share: what two decimals round to 0 is 0, and no power of ten beside numbers of the size of 1."""
    return value if value is None else round(value, 2) + 0.0


def _told(value: float | None) -> Cell:
    """Nothing where there is no such number: that is no undefined one."""
    return "" if value is None else value


def _list(near: Sequence[Neighbour]) -> str:
    return "   ".join(f"{each.index} {each.cosine:+.2f}" for each in near)


def _token(text: str) -> str:
    """With marks around it: a leading space could not be seen."""
    return f"'{cut(visible(text), LONGEST_TOKEN)}'"


def _around(before: str, token: str, after: str) -> str:
    """The token in brackets, with as much text around it as there is room for."""
    middle = f"[{cut(visible(token), LONGEST_TOKEN)}]"
    left = cut(visible(before), LONGEST_TEXT // 2, keep_end=True)
    return cut(f"{left}{middle}{visible(after)}", LONGEST_TEXT)

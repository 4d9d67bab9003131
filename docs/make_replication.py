"""Writes the tables of docs/replication.md from what `replicate.py` has kept: `python docs/make_replication.py`

Nothing between the marks of the page is written by hand; a test makes it again and compares.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from replicate import DEPTH, KEPT, MODELS, Model, Result, Results, by_experiment  # noqa: E402

from inspector.claims import CLAIMS, Verdict, counted, evaluate  # noqa: E402
from inspector.drawing.figures import with_interval  # noqa: E402

PAGE = ROOT / "docs" / "replication.md"
BEGIN, END = "<!-- made by docs/make_replication.py: {} -->", "<!-- made until here -->"
REAL = ("smollm2", "gemma3-270m")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is kept of one model."""

    model: Model
    results: Results
    depth: tuple[Result, ...]
    verdicts: Mapping[str, Verdict]

    def number(self, experiment: str, key: str) -> str:
        """'0.531 [0.521, 0.541]' of the SAE that stands for the others; KeyError without the result."""
        return scored(self.results[experiment], self.model.like, key)

    def spread(self, experiment: str, key: str) -> str:
        """'0.71 to 0.86' over all SAEs, or pairs of them, of a result; KeyError without the result."""
        found = self.results[experiment]
        rows = found["saes"] or found["result"].get("pairs") or ()
        values = [row[key] for row in rows if row.get(key) is not None]
        return f"{min(values):.3g} to {max(values):.3g}" if values else "—"


def kept(name: str) -> Measured | None:
    """What docs/replication/NAME.json holds; None: it was not measured yet."""
    path = KEPT / f"{name}.json"
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    results = by_experiment(found[""])
    return Measured(
        model=MODELS[name],
        results=results,
        depth=tuple(found.get(DEPTH, ())),
        verdicts={each.id: each for each in evaluate(results)},
    )


def of_claims(all_kept: Mapping[str, Measured]) -> Iterator[str]:
    """C1 to C19: the paper's number, ours, the verdict of `dm-inspect results claims`."""
    for name, own in all_kept.items():
        yield f"{MODELS[name].title}: {counted([*own.verdicts.values()])}.\n"
    yield f"| claim | the paper | {' | '.join(f'{MODELS[name].title} | verdict' for name in all_kept)} |"
    yield f"| --- | --- |{' --- | --- |' * len(all_kept)}"
    for claim in CLAIMS:
        cells = [f"{claim.id} {claim.claim}", claim.paper]
        for own in all_kept.values():
            verdict = own.verdicts[claim.id]
            cells += [f"{verdict.number}{verdict.said_of}" or "—", verdict.verdict]
        yield row_of(cells)


def of_reasons(all_kept: Mapping[str, Measured]) -> Iterator[str]:
    """Why each verdict is as it is, what stands against it included."""
    yield f"| claim | {' | '.join(MODELS[name].title for name in all_kept)} |"
    yield f"| --- |{' --- |' * len(all_kept)}"
    for claim in CLAIMS:
        said = [
            f"{own.verdicts[claim.id].why} {own.verdicts[claim.id].said_of_all_tokens}" for own in all_kept.values()
        ]
        yield row_of([claim.id, *said])


def of_figures(all_kept: Mapping[str, Measured]) -> Iterator[str]:
    """Every figure and table of the paper."""
    yield f"| figure | what it shows, and the paper's number | {' | '.join(MODELS[name].title for name in all_kept)} |"
    yield f"| --- | --- |{' --- |' * len(all_kept)}"
    for figure, said, number in FIGURES:
        cells = []
        for own in all_kept.values():
            try:
                cells.append(number(own))
            except KeyError as missing:
                cells.append(f"not measured ({missing.args[0]})")
        yield row_of([figure, said, *cells])


def _both(own: Measured, experiment: str, keys: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {own.number(experiment, key)}" for name, key in keys.items())


def _breakdown(own: Measured) -> str:
    found = own.results["dark-matter-breakdown"]["result"]
    if found["floor"] is None:
        return f"no power law: {found['floor_not_identified_because']}"
    ends = found["floor_above_nonlinear_interval"]
    floor = with_interval(found["floor"], found["floor_interval"])
    said = f"floor {floor}, mean nonlinear FVU {found['mean_fvu_nonlinear']:.3g}, "
    said += f"the floor above it by {with_interval(found['floor_above_nonlinear'], ends, '+')}"
    return said if found["floor_identified"] else f"{said}; not identified: {found['floor_not_identified_because']}"


def _over_width(own: Measured) -> str:
    said = []
    for experiment, key, name in (
        ("norm-prediction", "r2_norm", "norm R²"),
        ("error-vector", "r2_mean_dims", "vector R²"),
        ("fvu-nonlinear", "fvu", "FVU"),
        ("fvu-nonlinear", "fvu_nonlinear", "nonlinear FVU"),
    ):
        rows = series(own, experiment)
        said.append(f"{name} {' '.join(f'{row[key]:.3g}' for row in rows)}")
    widths = " ".join(f"{row['d_sae']:,}" for row in series(own, "fvu-nonlinear"))
    return f"at {widths} latents: {'; '.join(said)}"


def series(own: Measured, experiment: str) -> list[dict[str, Any]]:
    """The SAEs of all widths that have the nominal L0 of the one that stands for the others."""
    rows = own.results[experiment]["saes"]
    like = next(row for row in rows if row["sae"] == own.model.like)
    return sorted((row for row in rows if row["nominal_l0"] == like["nominal_l0"]), key=lambda row: row["d_sae"])


def _over_depth(own: Measured, experiment: str, key: str) -> str:
    rows = depth_rows(own, experiment)
    if not rows:
        raise KeyError("one layer was measured")
    return "; ".join(f"layer {row['layer']} {with_interval(row[key], ends.get(key))}" for row, ends in rows)


def depth_rows(own: Measured, experiment: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(row, its intervals) of one SAE per layer."""
    found = [each for each in own.depth if each["experiment"] == experiment]
    rows = [(row, each["intervals"].get(row["sae"], {})) for each in found for row in each["saes"]]
    return sorted(rows, key=lambda pair: pair[0]["layer"])


def _trace(own: Measured) -> str:
    rows = own.results["per-token-trace"]["saes"]
    rest = [row for row in rows if (row["correlation"] or 0.0) < 0.999999]
    shown, all_of = ([row[key] for row in rest if row[key] is not None] for key in ("correlation_shown", "correlation"))
    if not all_of:
        return "—"
    said = f"correlation with the narrowest SAE's norms {min(all_of):.3g} to {max(all_of):.3g} over all held-out tokens"
    return f"{said}, {min(shown):.3g} to {max(shown):.3g} on the hundred that are drawn" if shown else said


def _medians(own: Measured) -> str:
    found = own.results["norm-test"]["result"]
    return " > ".join(f"{name} {found['medians'][name]:.3g}" for name in found["order"])


def _error_saes(own: Measured) -> str:
    found = own.results["error-saes"]
    parts, sae = found["result"]["parts"], found["result"]["sae"]
    ends = found["intervals"][sae]
    said = [
        f"{part} {with_interval(parts[part]['fvu'], ends.get(part))}" for part in ("nonlinear_error", "linear_error")
    ]
    said += [f"{part} {parts[part]['fvu']:.3g}" for part in parts if part.startswith("gaussian")]
    return f"{', '.join(said)}; {found['result']['d_sae']:,} latents, {found['result']['tokens']:,} tokens each"


def _splices(own: Measured) -> str:
    said = []
    for part in ("linear", "nonlinear"):
        keys = (f"recovered_{part}", f"variance_recovered_{part}", f"norm_ratio_{part}")
        said.append("{} {}% (variance {}, norm {})".format(part, *(own.spread("ce-splice", key) for key in keys)))
    return "; ".join(said)


def _components(own: Measured) -> str:
    found = own.results["cross-component"]["result"]
    if not found["r2_mean_dims"]:
        return "no SAE of an earlier component"
    return "; ".join(
        f"{name}: {', '.join(f'{target} {value:.3g}' for target, value in targets.items() if value is not None)}"
        for name, targets in found["r2_mean_dims"].items()
    )


def _table_1(own: Measured) -> str:
    found = own.results["synthetic-sae"]["result"]["correlations"]
    return "; ".join(f"{name} {value:.4f}" for name, value in found.items() if value is not None)


FIGURES = (
    ("Fig. 1", "four bands over width; the floor c lies above the mean nonlinear FVU", _breakdown),
    ("Fig. 2", "norm R² 0.70 to 0.95, vector R² 0.15 to 0.72, nonlinear FVU flat in width", _over_width),
    ("Fig. 3", "norm R² over depth", lambda own: _over_depth(own, "norm-prediction", "r2_norm")),
    (
        "Fig. 4",
        "R² of a larger SAE's error norm from a smaller one's; 'high'",
        lambda own: f"{own.spread('per-token-scaling', 'r2')}; from ‖x‖ {own.spread('per-token-scaling', 'r2_x_norm')}",
    ),
    ("Fig. 5", "error norms along a hundred tokens", _trace),
    ("Fig. 6", "R² of five squared norms; x first, nonlinear error last", _medians),
    (
        "Fig. 7, Sec. 5.2",
        "FVU of SAEs on the two errors, 0.59 against 0.54 (the figure's accuracies are C9)",
        _error_saes,
    ),
    ("Fig. 8", "loss recovered, beside variance and norm; no number", _splices),
    (
        "Fig. 9a",
        "pursuit: FVU 3 to 5% lower, nonlinear FVU about the same",
        lambda own: (
            f"FVU lower by {own.spread('pursuit', 'fvu_decrease_percent')}%, nonlinear FVU changed by "
            f"{own.spread('pursuit', 'fvu_nonlinear_change_percent')}%"
        ),
    ),
    ("Fig. 9b", "R² from earlier components: of the nonlinear error x_hat 0.50, others 0.04 to 0.14", _components),
    ("Fig. 10, 11", "vector R² at other layers", lambda own: _over_depth(own, "error-vector", "r2_mean_dims")),
    ("Fig. 10, 11", "nonlinear FVU at other layers", lambda own: _over_depth(own, "fvu-nonlinear", "fvu_nonlinear")),
    (
        "Fig. 12",
        "mean norm per doubling of the width: linear falls, nonlinear stays",
        lambda own: "linear {linear_slope_percent:+.3g}%, nonlinear {nonlinear_slope_percent:+.3g}%".format_map(
            own.results["per-token-split"]["result"]
        ),
    ),
    (
        "Fig. 13",
        "R² of the error norm: x better than token, loss, L0, ‖x‖",
        lambda own: _both(
            own, "norm-baselines", {"x": "r2_x", "token": "r2_token", "loss": "r2_loss", "‖x‖": "r2_x_norm"}
        ),
    ),
    (
        "Fig. 14",
        "probe against mean activation: 'approximately equal'",
        lambda own: _both(own, "probe-vs-latents", {"slope": "slope", "correlation": "correlation"}),
    ),
    ("Fig. 15, Table 1", "0.9842, 0.1417, 0.0988, 0.9036", _table_1),
    (
        "Fig. 16",
        "percent of FVU by adding the nonlinear norm, up to 5; control: the linear norm",
        lambda own: (
            f"{own.spread('scaling-with-nonlinear', 'decrease_percent')}%; control "
            f"{own.spread('scaling-with-nonlinear', 'decrease_percent_linear')}%"
        ),
    ),
    (
        "App. A.1",
        "reconstructions 10% shorter; cosine of linear error and x 0.5",
        lambda own: _both(
            own, "shrinkage", {"norm": "norm_ratio", "cosine": "cosine", "share of the map": "scalar_share"}
        ),
    ),
    (
        "App. D",
        "random directions: α(1-α)",
        lambda own: f"largest gap {own.results['synthetic-random']['result']['largest_gap']:.4f}",
    ),
)
"""(figure, what it shows, what says ours)."""
SCORES = (
    ("fvu-nonlinear", "fvu", "FVU"),
    ("fvu-nonlinear", "fvu_nonlinear", "nonlinear FVU"),
    ("error-vector", "r2_mean_dims", "vector R², mean over dims"),
    ("error-vector", "r2_pooled", "pooled"),
    ("norm-prediction", "r2_norm", "norm R²"),
)


def of_tokens(all_kept: Mapping[str, Measured]) -> Iterator[str]:
    """Every SAE's numbers without and with the tokens that outweigh all others."""
    yield f"| SAE | tokens | {' | '.join(title for *_, title in SCORES)} | n_eff | top 0.1% carry |"
    yield "| --- | --- |" + " --- |" * (len(SCORES) + 2)
    for name in all_kept:
        own = all_kept[name]
        for results in by_layer(own):
            first = results["fvu-nonlinear"]
            found = first["provenance"].get("outlier_tokens") or {}
            n = found.get("n_train", 0) + found.get("n_test", 0)
            for row in first["saes"]:
                for suffix, what in (("", f"without {n:,}"), ("_all_tokens", "all")):
                    if suffix and not n:
                        continue
                    cells = [f"{MODELS[name].title}, {row['sae']}", what if n else "all; no outlier"]
                    for experiment, key, _ in SCORES:
                        cells.append(scored(results[experiment], row["sae"], key + suffix))
                    cells += [f"{row[f'n_eff{suffix}']:,.0f}", f"{row[f'top_share{suffix}']:.1%}"]
                    yield row_of(cells)


def by_layer(own: Measured) -> list[Results]:
    """Results of the main layer, and of each other one."""
    layers: dict[int, Results] = {}
    for each in own.depth:
        layers.setdefault(each["saes"][0]["layer"], {})[each["experiment"]] = each
    main = own.results["fvu-nonlinear"]["saes"][0]["layer"]
    return [own.results, *(layers[layer] for layer in sorted(layers) if layer != main)]


def scored(result: Result, sae: str, key: str) -> str:
    """A score of an SAE with its interval."""
    row = next((row for row in result["saes"] if row["sae"] == sae), {})
    return "—" if row.get(key) is None else with_interval(row[key], result["intervals"].get(sae, {}).get(key))


def of_differences(all_kept: Mapping[str, Measured]) -> Iterator[str]:
    """What was measured where, beside the paper."""
    yield f"| | the paper | {' | '.join(MODELS[name].title for name in all_kept)} |"
    yield f"| --- | --- |{' --- |' * len(all_kept)}"
    firsts = {name: own.results["fvu-nonlinear"] for name, own in all_kept.items()}
    rows = {
        "hook": ("residual stream, Gemma 2 9B layer 20 and others", lambda r: r["provenance"]["hook_name"]),
        "dimensions of x": (
            "2,304 to 4,096",
            lambda r: f"{r['provenance'].get('d', r['provenance'].get('d_in', '—'))}",
        ),
        "latents": ("16k to 1M", lambda r: ", ".join(f"{w:,}" for w in sorted({s["d_sae"] for s in r["saes"]}))),
        "nominal L0": ("5 to 342", lambda r: ", ".join(f"{k:g}" for k in sorted({s["nominal_l0"] for s in r["saes"]}))),
        "tokens fitted": ("150,000", lambda r: f"{r['saes'][0]['n_train']:,}"),
        "tokens fitted per dimension": ("37 to 65", lambda r: f"{r['provenance']['n_train_per_d']:.0f}"),
        "tokens scored": ("97,000", lambda r: f"{r['saes'][0]['n_test']:,}"),
    }
    for what, (paper, value) in rows.items():
        yield row_of([what, paper, *(value(first) for first in firsts.values())])


def of_commands(all_kept: Mapping[str, Measured]) -> Iterator[str]:
    """What `measure` gives, as it is typed."""
    for name in all_kept:
        for command in (each for commands in MODELS[name].commands.values() for each in commands):
            yield f"    dm-inspect {command.format(gguf='GGUF', corpus='CORPUS', saes='SAES')}"


def row_of(cells: Sequence[str]) -> str:
    """A line of a table; a bar within a cell would begin another one."""
    return "| " + " | ".join(cell.replace("|", "\\|").strip() for cell in cells) + " |"


PARTS = {
    "differences": of_differences,
    "claims": of_claims,
    "figures": of_figures,
    "tokens": of_tokens,
    "reasons": of_reasons,
    "commands": of_commands,
}


def make() -> dict[str, str]:
    """The tables, by name."""
    all_kept = {name: own for name in MODELS if (own := kept(name)) is not None}
    real = {name: own for name, own in all_kept.items() if name in REAL}
    return {name: "\n".join([*part(real if name == "tokens" else all_kept), ""]) for name, part in PARTS.items()}


def page(text: str, made: Mapping[str, str]) -> str:
    """The page with its tables made anew."""
    for name, table in made.items():
        head, _, rest = text.partition(BEGIN.format(name))
        _, _, tail = rest.partition(END)
        text = f"{head}{BEGIN.format(name)}\n\n{table}\n{END}{tail}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), make()), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")

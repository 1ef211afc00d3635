"""Figures for a paper of two columns, by matplotlib: the same rows give the same bytes. Names are never formulas."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from oodbench.figures.data import scorer
from oodbench.figures.feature_maps import PLANES
from oodbench.report.claims.estimates import ERROR
from oodbench.report.correlation import correlation
from oodbench.store.columns import RECALLS
from oodbench.study.study import GROUPS

WIDTHS = {"single": 3.25, "double": 6.75}  # inches
ENDINGS = ("pdf", "svg", "png")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")  # Okabe & Ito 2008
MARKERS = "osD^vP<>X"
LINES: Any = ("-", "--", ":", "-.")
LONGEST = 30  # letters of a label
NAMES = 20  # classes that are named on a map
TOP = 20  # detectors whose mean ranks are drawn
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 7),
    **{"axes.linewidth": 0.6, "lines.linewidth": 1, "lines.markersize": 3.5, "font.family": "DejaVu Sans"},
    **{"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "savefig.dpi": 300},
    **{"pdf.fonttype": 42, "svg.hashsalt": "oodbench", "text.parse_math": False},
    "figure.constrained_layout.use": True,
}
UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}


def drawn(kind: str, found: pd.DataFrame, width: float) -> Figure:
    """Return the figure of a kind, `width` inches wide, of what `data` returns for it."""
    with style.context(STYLE, after_reset=True):
        return KINDS[kind](found, width)


def written(figure: Figure, ending: str) -> bytes:
    """Return a figure as a .pdf, .svg or .png file, fonts embedded and without a date."""
    with style.context(STYLE, after_reset=True):
        stream = io.BytesIO()
        figure.savefig(stream, format=ending, metadata=UNDATED[ending])
        return stream.getvalue()


# ---- kinds --------------------------------------------------------------------------------------------


def heat(found: pd.DataFrame, width: float) -> Figure:
    """Return a panel for each OOD set: AUROC of scorers, down, after trainings, across."""
    sets, scorers, trainings = (list(found[name].unique()) for name in ("ood", "scorer", "training"))
    names = [_short(each, LONGEST if width < 4 else 40) for each in scorers]
    labels = max(map(len, names)) * 0.06 + 0.2  # inches
    wide = (width - labels - 0.6) / (len(sets) * len(trainings))  # of a cell
    key = [f"{i}  {_short(each, int(14 * width))}" for i, each in enumerate(trainings, 1)]
    letters = [f"{chr(ord('a') + i % 26)}  {_short(each, int(14 * width))}" for i, each in enumerate(sets)]
    titles = [letter[0] for letter in letters]
    if max(map(len, sets)) * 0.08 < wide * len(trainings):  # all names have room
        titles, letters = sets, []
    figure = Figure((width, 0.15 * len(scorers) + 0.14 * len([*key, *letters]) + 0.7))
    axes = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    for ax, ood, title in zip(axes, sets, titles, strict=True):
        values = found[found["ood"] == ood].pivot(index="scorer", columns="training", values="auroc")
        grid = values.reindex(index=scorers, columns=trainings).to_numpy(dtype=float)
        image = ax.imshow(grid, vmin=50, vmax=100, cmap="cividis", aspect="auto", interpolation="nearest")
        ax.set_title(title)
        numbers = [str(i) for i in range(1, len(trainings) + 1)]
        ax.set_xticks(range(len(trainings)), numbers, fontsize=7 if wide >= 0.1 else 5)
        ax.set_yticks(range(len(scorers)), names)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for (row, column), value in np.ndenumerate(grid if wide >= 0.19 else grid[:0]):
            if not math.isnan(value):
                colour = "black" if value > 75 else "white"
                ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6, color=colour)
    where: dict[str, Any] = {"location": "bottom", "fraction": 0.02, "pad": 0.01, "aspect": 30}
    figure.colorbar(image, ax=axes, label="AUROC (%)", extend="min", **where)
    figure.supxlabel("\n".join([*letters, *key]), x=0.02, ha="left", fontsize=7, linespacing=1.2)
    return figure


def near_far(found: pd.DataFrame, width: float) -> Figure:
    """Return a dot for each detector; the best of each training, by near-OOD, has its intervals."""
    figure = Figure((width, 2.8))
    ax = figure.subplots()
    for name, each, colour, marker in _each(found, "training"):
        ax.scatter(each["near"], each["far"], 5, color=colour, marker=marker, linewidths=0, alpha=0.4, gid="detectors")
        best = each.iloc[int(each["near"].argmax())]
        errors = [[[best[g] - best[f"{g}_low"]], [best[f"{g}_high"] - best[g]]] for g in GROUPS]
        look: dict[str, Any] = {"color": colour, "marker": marker, "markeredgecolor": "black", "markeredgewidth": 0.5}
        ax.errorbar(best["near"], best["far"], errors[1], errors[0], elinewidth=0.6, label=name, linestyle="", **look)
    for axis, group in ((ax.xaxis, "near"), (ax.yaxis, "far")):
        axis.set_label_text(f"{group}-OOD AUROC (%)")
        low, high = found[group].min(), np.nanmax([found[group], found[f"{group}_high"]])
        (ax.set_xlim if axis is ax.xaxis else ax.set_ylim)(max(0, low - 2), min(101, high + 2))
    _legend(figure, ax, width)
    return figure


def quality(found: pd.DataFrame, width: float) -> Figure:
    """Return a panel for each measure on ID test: its cells at one distance, the first that most cells have."""
    group = next(each for each in GROUPS if (found["group"] == each).any())
    distance = found["distance"].value_counts(sort=False).idxmax()
    shown = found[(found["split"] == "test") & (found["group"] == group) & (found["distance"] == distance)]
    figure, axes = _panels(list(shown["measure"].unique()), width)
    for measure, ax in axes.items():
        cells = shown[shown["measure"] == measure]
        for name, each, colour, marker in _each(cells, "training", list(shown["training"].unique())):
            look: dict[str, Any] = {"color": colour, "marker": marker, "linewidths": 0, "alpha": 0.6}
            ax.scatter(each["value"], each["auroc"], 7, label=name, gid="cells", **look)
        rho = correlation(cells["value"], cells["auroc"], cells["train_key"].to_numpy(dtype=object)).spearman
        ax.set_title(f"Spearman {rho:.2f}" if not math.isnan(rho) else "")
        ax.set_xlabel(measure.replace("_", " "))
    _label_left(axes, f"{group}-OOD AUROC (%)")
    figure.suptitle(f"distance: {_short(str(distance), 60)}", fontsize=8)
    _legend(figure, next(iter(axes.values())), width)
    return figure


def curve(found: pd.DataFrame, width: float) -> Figure:
    """Return a panel for each number over the epochs, a line for each training and detector."""
    found = found.assign(scorer=scorer(found.reindex(columns=["distance", "posthoc"], fill_value="")))
    known = {"mean", "std", "n", "kind", "number", "epoch", "distance", "posthoc"}
    by = [name for name in found.columns if name not in known | {"training", "scorer"}]
    scorers = list(found["scorer"].unique())
    titles = {("AUROC" if kind == "AUROC" else "", number): None for kind, number in _pairs(found, "kind", "number")}
    figure, axes = _panels(list(titles), width)
    for (kind, number), ax in axes.items():
        panel = found[((found["kind"] == "AUROC") == bool(kind)) & (found["number"] == number)]
        for name, each, colour, marker in _each(panel, "training", list(found["training"].unique())):
            lines = {tuple(line["mean"]): (key, line) for key, line in each.groupby(["scorer", *by], sort=False)}
            for key, line in lines.values():  # what does not depend on the scorer is drawn once
                dash = LINES[scorers.index(key[0]) % len(LINES)] if kind else "-"
                ax.plot(line["epoch"], line["mean"], dash, color=colour, marker=marker, markersize=2.5, label=name)
        unit = "AUROC (%)" if kind else "(%)" if "accuracy" in number else "(× 100)"
        ax.set_title(f"{_short(number if kind else number.replace('_', ' '), 22)}\n{unit}")
        ax.set_xlabel("epoch")
    _legend(figure, next(iter(axes.values())), width, dict(zip(scorers, cycle(LINES), strict=False)))
    return figure


def pareto(found: pd.DataFrame, width: float) -> Figure:
    """Return a panel for each group of OOD sets: detectors by seconds and AUROC, and their front."""
    figure, axes = _panels([*found["group"].unique()], width, most=2, tall=2.2)
    for group, ax in axes.items():
        inside = found[found["group"] == group]
        for name, each, colour, marker in _each(inside, "training", list(found["training"].unique())):
            look: dict[str, Any] = {"color": colour, "marker": marker, "linewidths": 0, "alpha": 0.5}
            ax.scatter(each["seconds"], each["auroc"], 7, label=name, gid="detectors", **look)
        front = inside[inside["front"]].sort_values("seconds")
        ax.plot(front["seconds"], front["auroc"], color="black", linewidth=0.8, drawstyle="steps-post", gid="front")
        ax.set_xscale("log")
        few = found["seconds"].max() < 100 * found["seconds"].min()
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=9))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel("fitting and scoring (s)")
        ax.set_ylabel(f"{group}-OOD AUROC (%)")
    _legend(figure, next(iter(axes.values())), width)
    return figure


def thresholds(found: pd.DataFrame, width: float) -> Figure:
    """Return what cuts keep and catch, a line for each threshold over its levels; dotted are the levels."""
    figure = Figure((width, 2.5))
    ax = figure.subplots()
    for level in found["level"].dropna().unique():
        ax.axvline(100 * level, color="#999999", linewidth=0.6, linestyle=":", zorder=0)
    for name, each, colour, marker in _each(found, "threshold"):
        bars = [
            (each[[f"{r}_low", f"{r}_high"]].sub(each[r], axis=0).abs().T.to_numpy(dtype=float)) for r in RECALLS[:2]
        ]
        look: dict[str, Any] = {"color": colour, "marker": marker, "elinewidth": 0.6, "label": name}
        ax.errorbar(each["id_recall"], each["ood_recall"], bars[1], bars[0], linewidth=0.8, **look)
    ax.set_xlabel("ID test kept (%)")
    ax.set_ylabel("OOD caught (%)")
    _legend(figure, ax, width)
    return figure


def ranks(found: pd.DataFrame, width: float) -> Figure:
    """Return the best mean ranks, and which lie within the critical difference of the best."""
    shown = found.head(TOP)
    names = shown.drop(columns="rank").astype(str).agg(" · ".join, axis=1)
    figure = Figure((width, 0.16 * len(shown) + 0.9))
    ax = figure.subplots()
    ax.plot(shown["rank"], range(len(shown)), "o", color=COLOURS[0], gid="detectors")
    best, reach, p = shown["rank"].iloc[0], found.attrs["difference"], found.attrs["p"]
    ax.axvspan(best, best + reach, color="#999999", alpha=0.25, linewidth=0)
    ax.set_yticks(range(len(shown)), [_short(each, int(10 * width)) for each in names])
    ax.invert_yaxis()
    apart = "" if p <= ERROR else ", so that no two are told apart"
    lines = [f"mean rank over {found.attrs['blocks']} ID sets", f"grey: critical difference {reach:.2f}"]
    figure.supxlabel("\n".join([*lines, f"Friedman's p = {p:.2g}{apart}"]), fontsize=7)
    return figure


def roc(found: pd.DataFrame, width: float) -> Figure:
    """Return the ROC curve of each row, named with its AUROC."""
    figure = Figure((width, min(width, 3)))
    ratios = (3, width - 3) if width > 4 else (1,)
    ax, *beside = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    ax.plot([0, 100], [0, 100], color="#999999", linewidth=0.6, linestyle=":", zorder=0)
    for i, (name, each, colour, _) in enumerate(_each(found, "of")):
        text = f"{_short(name, int(11 * width) if beside else 30)} ({each['auroc'].iloc[0]:.1f} %)"
        ax.plot(
            each["id_rejected"], each["ood_found"], LINES[i // len(COLOURS) % 4], color=colour, label=text, gid="curve"
        )
    ax.set_xlabel("ID taken for OOD (%)")
    ax.set_ylabel("OOD found (%)")
    ax.set_xlim(-1, 101)
    ax.set_ylim(-1, 101)
    for each in beside:
        each.set_axis_off()
        each.legend(*ax.get_legend_handles_labels(), loc="center left")
    if not beside:
        _legend(figure, ax, width)
    return figure


def histogram(found: pd.DataFrame, width: float) -> Figure:
    """Return a panel for each row: shares of ID test and of OOD by score, dashed the cut."""
    figure, axes = _panels(list(found["of"].unique()), width, most=4 if width > 4 else 2, tall=1.6)
    for name, ax in axes.items():
        bins = found[found["of"] == name]
        for side, colour in (("id", COLOURS[0]), ("ood", COLOURS[1])):
            edges = [*bins["low"], bins["high"].iloc[-1]]
            ax.stairs(bins[side], edges, fill=True, color=colour, alpha=0.5, label=side.upper())
        ax.axvline(bins["cut"].iloc[0], color="black", linewidth=0.6, linestyle="--", label="cut")
        ax.set_title(_short(str(name), 32), fontsize=7)
        ax.set_xlabel("score")
    _label_left(axes, "images (%)")
    _legend(figure, next(iter(axes.values())), width)
    return figure


def bank(found: pd.DataFrame, width: float) -> Figure:
    """Return the images of ID test and of OOD sets by PCA and by t-SNE, ID classes named at the means of theirs."""
    figure = Figure((width, width / 2 + 0.2))
    axes = figure.subplots(1, 2)
    sets = found.drop_duplicates("set").sort_values("group", key=lambda group: group.map(["ID", *GROUPS].index))["set"]
    named = found[found["class"] != ""].groupby("class")
    for ax, plane, title in zip(axes, PLANES, PLANES.values(), strict=True):
        for name, each, colour, marker in _each(found, "set", list(sets)):
            look: dict[str, Any] = {"color": colour, "marker": marker, "linewidths": 0, "alpha": 0.6}
            ax.scatter(each[f"{plane}_x"], each[f"{plane}_y"], 2 * width / 3, gid="images", **look)
            text = f"{_short(name, int(10 * width))} ({each['group'].iloc[0]})"
            ax.plot([], [], linestyle="", color=colour, marker=marker, label=text)
        means = named[[f"{plane}_x", f"{plane}_y"]].mean()
        for label, (x, y) in means.iterrows() if len(means) <= NAMES else ():
            outline = [Stroke(linewidth=1.5, foreground="white"), Normal()]
            ax.text(x, y, _short(str(label), 12), ha="center", va="center", fontsize=6, path_effects=outline)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(True)
        ax.set_aspect("equal", "datalim")
        ax.set_title(title)
    axes[0].set_title(
        "PCA, {:.0f} and {:.0f} % of the variance".format(*found.attrs["explained"]) if width > 4 else "PCA"
    )
    _legend(figure, axes[0], width)
    return figure


KINDS: dict[str, Callable[[pd.DataFrame, float], Figure]] = {
    each.__name__.replace("_", "-"): each
    for each in (heat, near_far, quality, curve, pareto, ranks, thresholds, roc, histogram, bank)
}


# ---- parts --------------------------------------------------------------------------------------------


def _short(label: str, most: int = LONGEST) -> str:
    """Return a label, the middle of a long one left out."""
    return label if len(label) <= most else f"{label[: most * 2 // 3]}…{label[len(label) - most // 3 + 1 :]}"


def _pairs(found: pd.DataFrame, one: str, other: str) -> list[tuple[str, str]]:
    return list(found[[one, other]].drop_duplicates().itertuples(index=False, name=None))


def _each(found: pd.DataFrame, by: str, names: Sequence[str] = ()) -> Iterator[tuple[str, pd.DataFrame, str, str]]:
    """Yield each name with its rows, colour and marker, which are the same where all `names` are given."""
    styles = zip(names or list(found[by].unique()), cycle(COLOURS), cycle(MARKERS), strict=False)
    for name, colour, marker in styles:
        if len(rows := found[found[by] == name]):
            yield str(name), rows, colour, marker


def _panels(names: list[Any], width: float, most: int = 4, tall: float = 1.45) -> tuple[Figure, dict[Any, Axes]]:
    """Return a figure of panels by name, half as many beside each other in a single column."""
    lines = math.ceil(len(names) / (most if width > 4 else max(1, most // 2)))
    columns = math.ceil(len(names) / lines)
    figure = Figure((width, tall * lines))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.remove()
    return figure, dict(zip(names, axes, strict=False))


def _label_left(axes: dict[Any, Axes], label: str) -> None:
    for ax in axes.values():
        place = ax.get_subplotspec()
        if place is not None and place.is_first_col():
            ax.set_ylabel(label)


def _legend(figure: Figure, ax: Axes, width: float, dashes: dict[str, Any] | None = None) -> None:
    """Name colours and markers, and dashes, below the axes, in as many columns as fit."""
    handles, labels = ax.get_legend_handles_labels()
    shown = dict(zip(labels, handles, strict=True))
    for name, dash in (dashes or {}).items() if len(dashes or {}) > 1 else ():
        shown[name] = Line2D([], [], color="#666666", linestyle=dash)
    texts = [_short(each, 40) for each in shown]
    columns = max(1, min(len(texts), int(width / (0.35 + 0.065 * max(map(len, texts))))))
    figure.set_figheight(figure.get_figheight() + 0.17 * math.ceil(len(texts) / columns))
    look: dict[str, Any] = {"ncols": columns, "columnspacing": 1, "handletextpad": 0.3, "markerscale": 1.4}
    legend = figure.legend(list(shown.values()), texts, loc="outside lower center", **look)
    for handle in legend.legend_handles:
        if isinstance(handle, Collection):  # dots, which are faint where many lie on each other
            handle.set_alpha(1)

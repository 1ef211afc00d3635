"""Figures for paper: the marks are the data, the bytes are the same twice, names are text."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call
from hand_made_rows import made
from matplotlib.figure import Figure
from places import ROOT

from oodbench.figures import data, printed
from oodbench.store.columns import QUALITY

HOSTILE = ("$x_1$", "<b>&amp;</b>", "\\frac{1}{0}", "$", "%s {} é")
PUBLISHED = ROOT / "results" / "published"
Found = Callable[[], pd.DataFrame]


def rows() -> pd.DataFrame:
    """Return rows of five trainings with names that are markup elsewhere, two distances, three seeds, two levels."""
    draw = np.random.default_rng(0)
    return made(
        *(
            {"training": name, "distance": distance, "seed": seed, "train_key": f"{name}{seed}", "level": level}
            | {"ood": ood, "group": group, "cell": f"{name} {distance} {seed} {level}"}
            | {"auroc": auroc, "score_seconds": 10 * auroc**2}
            for name in HOSTILE
            for distance in ("$d$", "knn")
            for seed in range(3)
            for ood, group in (("$ood^2$", "near"), ("far", "far"))
            for auroc in (draw.uniform(0.5, 1),)
            for level in (0.9, 0.95)
        )
    )


def ranked() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    return made(
        *(
            {"training": name, "family": f"{i}", "id": f"{i}", "auroc": draw.uniform(0.5, 1), "cell": f"{name} {i}"}
            for name in HOSTILE
            for i in range(9)
        )
    )


def measured() -> pd.DataFrame:
    places = rows()[["train_key", "training", "space", "clustering"]].drop_duplicates()
    numbers = {name: np.random.default_rng(i).uniform(size=len(places)) for i, name in enumerate(QUALITY)}
    measures = places.assign(clusters=3, error="", **numbers)
    return pd.concat([measures.assign(split=split) for split in ("train", "test")])


def course() -> pd.DataFrame:
    each = rows().query("level == 0.9")
    of_epochs = [each.assign(epoch=epoch, accuracy_linear=epoch / 10 + 0.1, error="") for epoch in (1, 2, 5)]
    return pd.concat(of_epochs).assign(**dict.fromkeys(QUALITY, 0.25))


def curves() -> pd.DataFrame:
    """Return two corners more of each curve than the ends."""
    draw = np.random.default_rng(0)
    corners = [np.vstack([[0, 0], np.sort(draw.uniform(0, 100, (2, 2)), axis=0), [100, 100]]) for _ in HOSTILE]
    parts = [pd.DataFrame(each, columns=["id_rejected", "ood_found"]) for each in corners]
    return pd.concat([each.assign(of=name, auroc=77.25) for name, each in zip(HOSTILE, parts, strict=True)])


def bars() -> pd.DataFrame:
    shares = np.random.default_rng(0).dirichlet(np.ones(8), 4) * 100
    parts = [
        pd.DataFrame({"low": range(8), "high": range(1, 9), "id": shares[i], "ood": shares[i + 1]}) for i in (0, 2)
    ]
    return pd.concat([each.assign(of=name, cut=3.5) for name, each in zip(HOSTILE[:2], parts, strict=True)])


def planes() -> pd.DataFrame:
    xy = np.random.default_rng(0).normal(size=(60, 4))
    found = pd.DataFrame(xy, columns=["pca_x", "pca_y", "tsne_x", "tsne_y"])
    found = found.assign(set=[*HOSTILE[:3]] * 20, group=["near", "ID", "far"] * 20)
    found["class"] = [f"$c_{i}$" if group == "ID" else "" for i, group in zip([0, 1] * 30, found["group"], strict=True)]
    found.attrs = {"explained": (60.0, 20.0), "of": "simclr"}
    return found


FOUND: dict[str, Found] = {
    "heat": lambda: data.heat(rows()),
    "near-far": lambda: data.near_far(rows()),
    "quality": lambda: data.quality(rows(), measured()),
    "curve": lambda: data.curve(course()),
    "pareto": lambda: data.pareto(rows()),
    "ranks": lambda: data.ranks(ranked()),
    "thresholds": lambda: data.thresholds(rows()),
    "roc": curves,
    "histogram": bars,
    "bank": planes,
}


def dots(figure: Figure, gid: str) -> list[tuple[float, float]]:
    """Return the dots of all panels that bear a mark's name, in order."""
    found = [each for ax in figure.axes for each in ax.collections if each.get_gid() == gid]
    return sorted((x, y) for each in found for x, y in np.asarray(each.get_offsets()).tolist())


def pairs(found: pd.DataFrame, x: str, y: str) -> list[tuple[float, float]]:
    return sorted(zip(found[x], found[y], strict=True))


@pytest.mark.parametrize("width", printed.WIDTHS.values())
@pytest.mark.parametrize("kind", FOUND)
def test_a_file_is_the_same_twice_and_names_are_text(kind: str, width: float) -> None:
    found = FOUND[kind]()
    for ending in printed.ENDINGS if width < 4 else ("pdf",):
        one, other = (printed.written(printed.drawn(kind, found, width), ending) for _ in range(2))
        assert one == other
        assert one.startswith({"pdf": b"%PDF", "svg": b"<?xml", "png": b"\x89PNG"}[ending])
        assert b"/Type3" not in one


@pytest.mark.parametrize("width", printed.WIDTHS.values())
@pytest.mark.parametrize("kind", FOUND)
def test_nothing_is_cut_off(kind: str, width: float) -> None:
    with printed.style.context(printed.STYLE, after_reset=True):
        figure = printed.drawn(kind, FOUND[kind](), width)
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()
    assert drawn.x0 > -0.02
    assert drawn.x1 < figure.get_figwidth() + 0.02
    assert drawn.y0 > -0.02
    assert drawn.y1 < figure.get_figheight() + 0.02


def test_every_kind_is_drawn() -> None:
    assert set(FOUND) == set(printed.KINDS)


def test_dots_are_detectors() -> None:
    found = FOUND["near-far"]()
    assert len(found) == 10
    figure = printed.drawn("near-far", found, 3.25)
    assert dots(figure, "detectors") == pairs(found, "near", "far")
    labels = [each.get_text() for each in figure.legends[0].get_texts()]
    assert sorted(labels) == sorted(HOSTILE)


def test_dots_of_both_groups_and_their_fronts() -> None:
    found = FOUND["pareto"]()
    figure = printed.drawn("pareto", found, 3.25)
    assert dots(figure, "detectors") == pairs(found, "seconds", "auroc")
    lines = [line for ax in figure.axes for line in ax.lines if line.get_gid() == "front"]
    corners = [sorted(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines]
    fronts = found[found["front"]].groupby("group", sort=False)
    assert corners == [pairs(each, "seconds", "auroc") for _, each in fronts]


def test_cells_are_those_of_one_distance() -> None:
    found = FOUND["quality"]()
    shown = found[(found["distance"] == "$d$") & (found["group"] == "near") & (found["split"] == "test")]
    assert len(shown) == 15 * len(QUALITY)
    figure = printed.drawn("quality", found, 6.75)
    assert len(figure.axes) == len(QUALITY)
    assert dots(figure, "cells") == pairs(shown, "value", "auroc")


def test_colours_are_numbers() -> None:
    found = FOUND["heat"]()
    figure = printed.drawn("heat", found, 6.75)
    grids = [image.get_array() for ax in figure.axes for image in ax.images if ax.get_title()]
    assert [grid.shape for grid in grids] == [(2, 5), (2, 5)]
    assert sorted(np.concatenate([grid.ravel() for grid in grids])) == pytest.approx(sorted(found["auroc"]))


def test_lines_are_trainings_and_detectors() -> None:
    figure = printed.drawn("curve", FOUND["curve"](), 6.75)
    counts = {ax.get_title().partition("\n")[0]: len(ax.lines) for ax in figure.axes}
    assert counts["probe accuracy"] == 5  # one number, whatever the distance
    assert counts["$ood^2$"] == 10


def test_ranks_and_cuts() -> None:
    found = FOUND["ranks"]()
    (ax,) = printed.drawn("ranks", found, 3.25).axes
    assert list(ax.lines[0].get_xdata()) == pytest.approx(list(found["rank"]))
    found = FOUND["thresholds"]()
    (ax,) = printed.drawn("thresholds", found, 3.25).axes
    assert len(ax.containers) == found["threshold"].nunique()


def test_curves_are_the_corners_with_the_auroc_beside_their_names() -> None:
    found = curves()
    for width in printed.WIDTHS.values():
        figure = printed.drawn("roc", found, width)
        drawn = [np.asarray(line.get_xydata()) for line in figure.axes[0].lines if line.get_gid() == "curve"]
        for line, (_, corners) in zip(drawn, found.groupby("of", sort=False), strict=True):
            assert (line == corners[["id_rejected", "ood_found"]].to_numpy()).all()
        (legend,) = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
        assert [each.get_text() for each in legend.get_texts()] == [f"{name} (77.2 %)" for name in HOSTILE]
        long = printed.drawn("roc", found.assign(of=found["of"] + " and a name that is too long" * 4), width)
        (legend,) = [*long.legends, *(ax.get_legend() for ax in long.axes if ax.get_legend())]
        assert all(each.get_text().count("…") == 1 and " (77.2 %)" in each.get_text() for each in legend.get_texts())


def test_steps_are_shares_and_the_cut() -> None:
    found = bars()
    figure = printed.drawn("histogram", found, 6.75)
    for ax, (name, part) in zip(figure.axes, found.groupby("of", sort=False), strict=True):
        assert ax.get_title() == name
        values = [step.get_data().values.tolist() for step in ax.patches]
        assert values == [part["id"].tolist(), part["ood"].tolist()]
        assert ax.lines[0].get_xdata()[0] == 3.5


def test_planes_hold_all_images_and_names_at_means() -> None:
    found = planes()
    figure = printed.drawn("bank", found, 6.75)
    expected = [*pairs(found, "pca_x", "pca_y"), *pairs(found, "tsne_x", "tsne_y")]
    assert dots(figure, "images") == sorted(expected)
    means = found[found["class"] != ""].groupby("class")[["tsne_x", "tsne_y"]].mean()
    names = {text.get_text(): text.get_position() for text in figure.axes[1].texts}
    assert names == {name: (pytest.approx(x), pytest.approx(y)) for name, (x, y) in means.iterrows()}
    assert figure.legends[0].get_texts()[0].get_text() == f"{HOSTILE[1]} (ID)"


def test_the_command_writes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(PUBLISHED))
    done = call("plot", ROOT / "benchmark.yaml", "thresholds", "--to", tmp_path / "a.svg")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.svg").read_bytes().startswith(b"<?xml")
    assert [path.name for path in tmp_path.iterdir()] == ["a.svg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["heet"], "did you mean 'heat'?"),
        (["heat", "--to", "a.gif"], ".pdf, .svg or .png"),
        (["heat", "--column", "doble"], "did you mean 'double'?"),
        (["curve"], "oodbench curve"),
        (["quality"], "oodbench quality"),
        (["ranks"], "8 independent ID data sets"),
        (["roc"], "plot roc: it takes a cell, or words of a table's line"),
        (["heat", "supcon"], "plot heat supcon: it takes no words"),
        (["roc", "suppcon"], "near are: training supcon"),
        (["histogram", "supcon", "knn"], "the key `scores` of a study says"),
        (["bank", "penultimate"], "add a word of training cross_entropy, simclr"),
        (["bank", "supcon"], "the features of supcon are not in"),
    ],
)
def test_what_is_wrong_or_missing_is_told(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(PUBLISHED))
    monkeypatch.setenv("OODBENCH_STORE", str(tmp_path))
    done = call("plot", ROOT / "benchmark.yaml", *words)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_without_a_store_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(PUBLISHED))
    monkeypatch.setenv("OODBENCH_STORE", str(tmp_path / "nowhere"))
    done = call("plot", ROOT / "benchmark.yaml", "bank", "supcon")
    assert done.exit_code == 2
    assert "there is no store of" in " ".join(done.output.split())
    assert "OODBENCH_STORE says where it is" in " ".join(done.output.split())


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "oodbench.figures.printed", raising=False)
    monkeypatch.delattr("oodbench.figures.printed", raising=False)
    done = call("plot", ROOT / "benchmark.yaml", "heat")
    assert done.exit_code == 2
    assert "pip install 'oodbench[plots]'" in " ".join(done.output.split())

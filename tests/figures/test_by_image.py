"""What a page draws of kept scores: of the highest methods, with curves thinned and images as they are kept."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from hand_made_rows import made
from page_data import page_data
from PIL import Image
from tiny import write

from oodbench.figures import by_image, data
from oodbench.store import scores
from oodbench.store.artifacts import Store

PICTURES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


def kept_scores(seed: int) -> scores.KeptScores:
    rng = np.random.default_rng(seed)
    id_, ood = (rng.normal(mean, size=900).astype(np.float32) for mean in (0.0, 1.5))
    wrong = [scores.Wrong(np.argsort(sign * each)[:2], PICTURES) for sign, each in ((-1, id_), (1, ood))]
    return scores.KeptScores(1.25, id_[:50], id_, ood, *wrong)


def with_scores(folder: Path, rows: pd.DataFrame, labels: list[int]) -> Store:
    store = Store(folder)
    for label in labels:
        row = rows.loc[label]
        scores.keep(store, (row["key"], row["ood"], row["ood_data"]), row["cell"], kept_scores(label))
    return store


def keyed(count: int) -> pd.DataFrame:
    changes: list[dict[str, Any]] = [
        {"key": f"{i:016x}", "ood_data": "d", "distance": f"knn(k={i})"} for i in range(count)
    ]
    return made(*changes)


def test_rows_whose_scores_are_kept_come_in_the_order_of_the_methods(tmp_path: Path) -> None:
    rows = keyed(30)
    shown, count = by_image.by_image(rows, with_scores(tmp_path, rows, [*range(1, 30)]), [*reversed(range(30))])
    assert count == 29
    assert [each["row"] for each in shown] == [*range(29, 29 - by_image.MOST, -1)]


def test_a_thinned_curve_has_its_ends_and_its_area(tmp_path: Path) -> None:
    rows = keyed(1)
    ((shown,), _) = by_image.by_image(rows, with_scores(tmp_path, rows, [0]), [0])
    x, y = (np.array(shown["roc"][name]) for name in ("id_rejected", "ood_found"))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 100, 100)
    assert len(x) <= by_image.POINTS < len(data.roc(kept_scores(0)))
    found = kept_scores(0)
    area = (found.ood[:, None] > found.id_).mean()
    assert abs(np.trapezoid(y, x) / 1e4 - area) < 2e-3
    assert abs(sum(shown["histogram"]["ood"]) - 100) < 1e-6
    assert shown["cut"] == 1.25


def test_images_are_as_they_are_kept(tmp_path: Path) -> None:
    rows = keyed(1)
    ((shown,), _) = by_image.by_image(rows, with_scores(tmp_path, rows, [0]), [0])
    found = kept_scores(0)
    sides = {"ID that looks most OOD": found.id_wrong, "OOD that looks most ID": found.ood_wrong}
    for side, wrong in sides.items():
        for i, each in enumerate(shown["wrong"][side]):
            content = base64.b64decode(each["src"].partition(",")[2])
            assert each["position"] == wrong.position[i]
            assert (np.asarray(Image.open(io.BytesIO(content))) == PICTURES[i]).all()


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--dry-data"]])
def test_the_page_and_figures_of_a_run_have_what_it_kept(words: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", outliers=None, scores={})
    assert call("run", path, "--device", "cpu", "--rows-only", *words).exit_code == 0
    assert call("report", path, "--to", tmp_path / "page.html", *words).exit_code == 0
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert json.dumps(page_data(text)).count("data:image/png;base64,") > by_image.SHOWN
    maps = page_data(text)["maps"]
    assert len(maps) == 2  # of both trainings
    for each in maps:
        assert len(each["images"]) == 3
        assert len(each["scored"]) == 2  # a cell of each distance
        assert {*each["points"]["columns"]["group"]["values"]} == {"ID", "near", "far"}
    done = call("plot", path, "roc", "simclr", "cosine", "--to", tmp_path / "roc.svg", *words)
    assert done.exit_code == 0, done.output
    done = call("plot", path, "bank", "simclr", "--to", tmp_path / "bank.png", *words)
    assert done.exit_code == 0, done.output
    assert {"roc.svg", "bank.png"} < {file.name for file in tmp_path.iterdir()}

"""A study's page in a browser: opened from disk, on a wide and a narrow screen, light and dark, by mouse and keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kept_features
import numpy as np
import pandas as pd
import pytest
from hand_made_rows import by_seed, made

from oodbench.figures.page import Material, page
from oodbench.store import scores
from oodbench.store.artifacts import Store
from oodbench.store.rows import frame

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script><img src=x onerror=alert(1)>"
QUOTES = """a"b'c`${alert(2)}"""
WIDE, NARROW = 1440, 390
DOTS = "[aria-label=dot] path"
FIGURES = {"heat": "[aria-label=cell] rect", "near_far": DOTS, "pareto": DOTS}
TEXTS = ("body", ".tabulator-cell", ".tabulator-col", "figcaption", ".controls summary", "[data-figure=near_far] svg")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium; make browser installs Debian's"),
]


def study() -> pd.DataFrame:
    """Return rows of 40 methods, three runs and two OOD sets, in which names try to be markup."""
    rng = np.random.default_rng(0)
    methods = [
        {"training": training, "distance": distance, "score_seconds": rng.uniform(0.1, 9), "ood": ood, "group": group}
        for training in ("simclr", HOSTILE)
        for distance in (QUOTES, *(f"knn(k={k})" for k in range(19)))
        for ood, group in ((QUOTES, "far"), ("letters", "near"))
    ]
    changes = [each for method in methods for each in by_seed(rng.uniform(0.3, 1, 3).tolist(), **method)]
    rows = made(*changes)
    cells = rows.groupby(["training", "distance", "seed"], sort=False).ngroup()
    ids = cells.map("{:016x}".format)
    return rows.assign(cell=ids, key=ids, detector='{"distance": {"name": "knn"}}', train_key="aa")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as found:
        opened = found.chromium.launch(executable_path=CHROMIUM)
        yield opened
        opened.close()


@contextmanager
def shown(browser: Any, file: Path, width: int, scheme: str = "light") -> Iterator[Any]:
    """Open a page, and fail where it says anything on its console, asks for anything or lets a name run."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab, said, asked = context.new_page(), [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(f"a name ran: {dialog.message}"), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    tab.locator("nav a").first.wait_for()
    yield tab
    tab.wait_for_timeout(100)
    assert said == []
    assert [each for each in asked if not each.startswith("data:")] == [file.as_uri()]
    context.close()


def kept(folder: Path, rows: pd.DataFrame) -> Store:
    """Return a store in which the scores of two rows are kept, beside two images of a side."""
    store, rng = Store(folder), np.random.default_rng(0)
    for row in rows.drop_duplicates("cell").head(2).to_dict("records"):
        id_, ood = rng.normal(size=(2, 60)).astype(np.float32)
        wrong = scores.Wrong(np.arange(2), rng.integers(0, 255, (2, 8, 8, 3)).astype(np.uint8))
        found = scores.KeptScores(0.5, id_[:9], id_, ood, wrong, wrong)
        scores.keep(store, (row["key"], row["ood"], row["ood_data"]), row["cell"], found)
    return store


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rows = tmp_path_factory.mktemp("pages"), study()
    found, store = folder / "report.html", kept(folder / "store", rows)
    material = Material(study=HOSTILE, file="tiny.yaml", rows=rows, warnings=[HOSTILE], store=store)
    found.write_text(page(material), encoding="utf-8")
    return found


def column(tab: Any, board: str, field: str, count: int = 5) -> list[str]:
    cells = tab.locator(f"[data-table={board}] .tabulator-cell[tabulator-field='{field}']:visible")
    return [cells.nth(i).inner_text() for i in range(count)]


def shares(tab: Any, place: str) -> list[str]:
    """Return the first means of a column of the leaderboard, without their intervals."""
    return [each.split()[0] for each in column(tab, "board", place)]


def tenths(numbers: pd.Series[float]) -> list[str]:
    return [f"{each:.1f}" for each in numbers]


def means(rows: pd.DataFrame, group: str) -> pd.Series[float]:
    return 100 * rows[rows["group"] == group].groupby(["training", "distance"])["auroc"].mean()


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_sorting_and_filtering_give_the_right_rows(browser: Any, file: Path, width: int) -> None:
    near, far = means(study(), "near"), means(study(), "far")
    with shown(browser, file, width) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        board = tab.locator("[data-table=board]")
        assert shares(tab, "0 mean") == tenths(near.nlargest(5))
        sort = board.get_by_role("button", name="far AUROC, %", exact=True)
        sort.focus()
        tab.keyboard.press("Enter")
        assert shares(tab, "1 mean") == tenths(far.nlargest(5))
        sort.click()
        assert shares(tab, "1 mean") == tenths(far.nsmallest(5))
        board.locator("summary", has_text="training").click()
        board.get_by_label(HOSTILE, exact=True).check()
        wanted = far[HOSTILE].nsmallest(5)
        assert board.locator(".count").inner_text() == "20 of 40 lines"
        assert shares(tab, "1 mean") == tenths(wanted)
        assert set(column(tab, "board", "training")) == {HOSTILE}
        dots = tab.locator("[data-figure=near_far] svg [aria-label=dot] path")
        dots.nth(20).wait_for(state="detached")
        assert dots.count() == 20
        board.get_by_role("searchbox").fill("k=7)")
        assert board.locator(".count").inner_text() == "1 of 40 lines"
        board.get_by_role("button", name="All rows").click()
        board.locator(".count", has_text="40 of 40 lines").wait_for()


def test_a_number_says_where_it_comes_from(browser: Any, file: Path) -> None:
    rows = study()
    with shown(browser, file, WIDE) as tab:
        tab.locator("[data-table=board] .tabulator-row button").first.focus()
        tab.keyboard.press("Enter")
        dialog = tab.get_by_role("dialog")
        assert "6 rows behind it" in dialog.inner_text()
        (training, distance) = means(rows, "near").idxmax()
        assert all(each in dialog.get_by_role("heading", level=3).inner_text() for each in (training, distance))
        dialog.locator("summary").first.click()
        first = rows[(rows["training"] == training) & (rows["distance"] == distance)].iloc[0]
        assert f"oodbench show tiny.yaml {first['cell']}/{first['ood']}" in dialog.inner_text()
        tab.keyboard.press("Escape")
        assert not dialog.is_visible()


def test_scores_by_image_are_drawn_with_the_images_that_are_most_wrong(browser: Any, file: Path) -> None:
    with shown(browser, file, NARROW) as tab:
        figure = tab.locator("[data-figure=images]")
        options = figure.locator("select option").all_text_contents()
        assert ["simclr" in each for each in options] == [True] * 2  # though it is the only one
        assert figure.locator("svg [aria-label=line] path").count() == 2  # the curve and the diagonal
        assert figure.locator("svg [aria-label=rect] rect").count() == 80
        bars = figure.locator("[aria-label=rect] rect")
        feet = bars.evaluate_all("(all) => all.map((each) => +each.getAttribute('y') + +each.getAttribute('height'))")
        assert max(feet) - min(feet) < 0.01  # side by side on the axis: bars on top of each other are no shares
        images = figure.locator("img")
        assert images.evaluate_all("(all) => all.map((each) => each.naturalWidth)") == [8] * 4
        figure.get_by_role("button", name="Where these come from").click()
        assert "1 row behind it" in tab.get_by_role("dialog").inner_text()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page of two trainings with features, scores of one of their distances, and published numbers."""
    folder, rows = tmp_path_factory.mktemp("maps"), kept_features.rows("simclr", HOSTILE)
    store = kept_features.filled(folder / "store", rows)
    lines = {"ID": ["digits"] * 2, "OOD": [QUOTES, "–"], "metric": ["auroc"] * 2, "published": ["80.20", "91.00"]}
    lines |= {"ours": ["81.40 ± 1.00 (n=3)", "–"], "difference": [1.2, np.nan]}
    lines |= {"state": ["undecided", "not comparable"]}
    against = ("A caption.", pd.DataFrame(lines))
    found = folder / "report.html"
    material = Material(study="maps", file="maps.yaml", rows=rows, store=store, against=against)
    found.write_text(page(material), encoding="utf-8")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_features_are_shown_on_either_plane_in_each_colouring(
    browser: Any, mapped: Path, width: int, scheme: str
) -> None:
    with shown(browser, mapped, width, scheme) as tab:
        figure = tab.locator("[data-figure=bank]")
        training, plane, colour = (figure.get_by_label(name, exact=True) for name in ("training", "plane", "colour"))
        assert training.locator("option").count() == 2
        images, places = sum(kept_features.COUNTS.values()), {}
        for at in ("PCA", "t-SNE"):
            plane.select_option(label=at)
            for way, least, most, painted in ((0, 3, 3, "stroke"), (1, 4, 4, "stroke"), (2, 10, images, "fill")):
                colour.select_option(index=way)  # sets; classes and what has none; scores
                marks = figure.locator(DOTS)
                assert marks.count() == images
                drawn = marks.evaluate_all("(all, by) => all.map((each) => getComputedStyle(each)[by])", painted)
                assert least <= len(set(drawn)) <= most
                moved = marks.evaluate_all("(all) => all.map((each) => each.getAttribute('transform'))")
                assert places.setdefault(at, moved) == moved
        assert places["PCA"] != places["t-SNE"]
        assert sorted(figure.locator("svg [aria-label=text] text").all_text_contents()) == sorted(kept_features.CLASSES)
        for name, count in kept_features.COUNTS.items():
            assert f"{count} of {count}" in figure.locator("span", has_text=name).first.inner_text()
        training.select_option(index=1)
        assert figure.locator(DOTS).count() == sum(kept_features.COUNTS.values())
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_published_numbers_are_beside_ours(browser: Any, mapped: Path) -> None:
    with shown(browser, mapped, WIDE) as tab:
        board = tab.locator("[data-table=against]")
        cells = {name: column(tab, "against", name, 2) for name in ("OOD", "published", "ours", "difference")}
        assert cells == {
            "OOD": [QUOTES, "–"],
            "published": ["80.20", "91.00"],
            "ours": ["81.40 ± 1.00 (n=3)", "–"],
            "difference": ["+1.20", "–"],
        }
        board.locator("summary", has_text="state").click()
        board.get_by_label("undecided", exact=True).check()
        assert board.locator(".count").inner_text() == "1 of 2 lines"


def test_on_paper_figures_fit_and_tables_are_whole(browser: Any, mapped: Path, tmp_path: Path) -> None:
    with shown(browser, mapped, WIDE, "dark") as tab:
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        tab.emulate_media(media="print")
        tab.set_viewport_size({"width": 680, "height": 900})  # A4 without its margins
        wide = tab.locator(".drawing svg").evaluate_all(
            "(all) => all.map((each) => each.getBoundingClientRect().right)"
        )
        assert max(wide) <= 680
        assert tab.locator("#published table").inner_text().count("81.40 ± 1.00 (n=3)") == 1
        assert tab.locator("#leaderboard table tr").count() == 1 + 4
        assert not tab.locator("[data-table=board]").is_visible()
        stroke = tab.locator(f"[data-figure=bank] {DOTS}").first.evaluate("(at) => getComputedStyle(at).stroke")
        assert stroke in {"rgb(0, 114, 178)", "rgb(179, 89, 0)", "rgb(0, 122, 94)"}  # the colours for light paper


def test_many_rows_are_few_elements(browser: Any, file: Path) -> None:
    with shown(browser, file, WIDE) as tab:
        assert tab.locator("[data-table=rows] .count").inner_text() == "240 of 240 lines"
        assert 0 < tab.locator("[data-table=rows] .tabulator-row").count() < 120


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_figures_have_marks_and_text_can_be_read(browser: Any, file: Path, width: int, scheme: str) -> None:
    with shown(browser, file, width, scheme) as tab:
        for figure, marks in FIGURES.items():
            assert tab.locator(f"[data-figure={figure}] svg {marks}").count() in (40, 80), figure
        for place in TEXTS:
            assert contrast(tab, place) >= 4.5, place


def contrast(tab: Any, selector: str) -> float:
    """Return the contrast (WCAG 2, from 1 to 21) of a text against the first background behind it that is painted."""
    colours = tab.locator(selector).first.evaluate(
        """(at) => {
          const ink = getComputedStyle(at).color;
          while (at && /transparent|, 0\\)/.test(getComputedStyle(at).backgroundColor)) at = at.parentElement;
          const both = [ink, getComputedStyle(at ?? document.body).backgroundColor];
          return both.map((each) => each.match(/[\\d.]+/g).slice(0, 3).map(Number));
        }"""
    )
    share = np.array(colours) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    return float((linear.max() + 0.05) / (linear.min() + 0.05))


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_study_without_rows_says_so(browser: Any, tmp_path: Path, width: int) -> None:
    file = tmp_path / "empty.html"
    file.write_text(page(Material(study="empty", file="empty.yaml", rows=frame([]))), encoding="utf-8")
    with shown(browser, file, width) as tab:
        assert "oodbench run empty.yaml" in tab.locator("#empty").inner_text()
        assert tab.locator(".tabulator").count() == 0
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")

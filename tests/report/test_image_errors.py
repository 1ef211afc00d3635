"""The error of test images in verdicts: DeLong's by slow loops, by simulation, and what is kept of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import call
from hand_made_rows import BASE
from scipy.stats import norm
from tiny import write

from oodbench.report.claims import images, sides, verdicts
from oodbench.report.claims.images import ImageErrors, placements
from oodbench.report.claims.verdicts import FAILS, HOLDS, OPEN, ClaimVerdict
from oodbench.store.artifacts import Store
from oodbench.store.rows import Results, frame
from oodbench.store.scores import KeptScores
from oodbench.study.declarations import ClaimSpec

Scores = dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]  # by row's key and OOD set: of ID, of OOD
SIMCLR, SUPCON, CE = ({"training": name} for name in ("simclr", "supcon", "cross_entropy"))


def auroc(id_: np.ndarray, ood: np.ndarray) -> float:
    return float(np.mean([(b > a) + 0.5 * (b == a) for a in id_ for b in ood]))


def made(scores: Scores) -> pd.DataFrame:
    """Return rows of scores whose keys are `training seed`, or `training seed distance id`."""
    rows = []
    for (key, ood), each in scores.items():
        training, seed, distance, id_ = (key if key.count(" ") == 3 else f"{key} cosine digits").split()
        labels = {"training": training, "seed": int(seed), "distance": distance, "id": id_, "family": id_, "ood": ood}
        base = BASE | {"posthoc": "–", "cell": key, "key": key, "ood_data": "c"}
        rows.append(base | labels | {"auroc": auroc(*each)})
    return frame(rows)


def at_hand(monkeypatch: pytest.MonkeyPatch, scores: Scores) -> None:
    """Let the store hold these scores."""

    def kept(store: Store, row: tuple[str, str, str]) -> KeptScores | None:
        there = scores.get(row[:2])
        return None if there is None else KeptScores(0.0, *(np.zeros(1, np.float32), *there), None, None)  # type: ignore[arg-type]

    monkeypatch.setattr(images.scores, "kept", kept)


def judged(rows: pd.DataFrame, known: ImageErrors | None, **claim: Any) -> ClaimVerdict:
    return verdicts.verdict(rows, "c", ClaimSpec(says="so", **claim), images=known)


def drawn(keys: list[str], sets: dict[str, int], seed: int = 0, n: int = 30) -> Scores:
    """Return scores with ties, in which images differ from each other in all runs alike."""
    rng = np.random.default_rng(seed)
    common = {name: rng.normal(0.8, 1, count) for name, count in sets.items()}
    base = rng.normal(0, 1, n)
    return {
        (key, name): ((base + rng.normal(0, 0.5, n)).round(1), (each + rng.normal(0, 0.5, len(each))).round(1))
        for key in keys
        for name, each in common.items()
    }


def test_placements_are_those_of_the_slow_loop() -> None:
    rng = np.random.default_rng(0)
    id_, ood = rng.normal(size=23).round(1), rng.normal(0.5, 1, 17).round(1)
    table = np.array([[(b > a) + 0.5 * (b == a) for b in ood] for a in id_])
    of_id, of_ood = placements(id_, ood)
    np.testing.assert_allclose(of_id, table.mean(1))
    np.testing.assert_allclose(of_ood, table.mean(0))


def same_id(scores: Scores) -> Scores:
    """Return scores whose ID part is that of the key's first set, as a detector's is."""
    first: dict[str, np.ndarray] = {}
    return {(key, ood): (first.setdefault(key, id_), each) for (key, ood), (id_, each) in scores.items()}


def test_the_error_is_delongs_of_the_mean_over_runs_and_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """ID images are shared by the sets; each set has images of its own; both are paired over sides and runs."""
    keys = [f"{training} {seed}" for training in ("supcon", "simclr") for seed in range(4)]
    scores = same_id(drawn(keys, {"a": 20, "b": 35}))
    at_hand(monkeypatch, scores)
    rows = made(scores)
    found = judged(rows, ImageErrors(Store(Path())), left=SUPCON, right=SIMCLR)
    (line,) = found.evidence
    signs = {key: (1 if key.startswith("supcon") else -1) / 4 for key in keys}
    of_id = np.zeros(30)
    variance = 0.0
    for name in ("a", "b"):
        of_ood: np.ndarray = np.zeros(scores[keys[0], name][1].shape)
        for key, sign in signs.items():
            table = np.array([[(b > a) + 0.5 * (b == a) for b in scores[key, name][1]] for a in scores[key, name][0]])
            of_id += 100 * sign / 2 * table.mean(1)
            of_ood += 100 * sign / 2 * table.mean(0)
        variance += of_ood.var(ddof=1) / len(of_ood)
    variance += of_id.var(ddof=1) / len(of_id)
    assert line.images == pytest.approx(np.sqrt(variance))
    alone = judged(rows, None, left=SUPCON, right=SIMCLR).evidence[0]
    assert np.isnan(alone.images)
    assert line.error == pytest.approx(np.hypot(alone.error, line.images))
    assert line.difference == alone.difference
    assert f"({line.images:.2f} of images)" in found.text()


CLAIMS: dict[str, dict[str, Any]] = {
    "settings": {"left": SUPCON, "right": SIMCLR},
    "sets": {"left": SUPCON, "right": SIMCLR, "over": ("ood",)},
    "mean": {"left": SUPCON, "right": SIMCLR, "over": ("ood", "distance"), "where": "mean"},
    "twice": {"left": SUPCON, "right": SIMCLR, "at": {"ood": "a"}, "than": {"ood": "b"}},
    "ids": {"left": SUPCON, "right": SIMCLR, "ids": "these"},
}


@pytest.mark.parametrize("name", CLAIMS)
def test_rows_weigh_as_much_as_they_do_in_the_numbers(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The weighted sum of the rows' AUROC is the difference, of each place and ID set, whatever is averaged."""
    ids = ("x", "y") if name == "ids" else ("x",)
    words = itertools.product(("supcon", "simclr"), "012", ("cosine", "euclidean"), ids)
    keys = [" ".join(each) for each in words]
    scores = same_id(drawn(keys, {"a": 10, "b": 12}))
    del scores["supcon 2 cosine x", "b"]  # with it this run has no number
    rows = made(scores)
    seen: dict[str, pd.DataFrame] = {}

    class Listening(ImageErrors):
        def errors(self, claim: str, made: Callable[[], pd.DataFrame]) -> dict[Any, Any]:
            seen[claim] = made()
            return {}

    found = judged(rows, Listening(None), **CLAIMS[name])
    wanted = {line.place: line.difference for line in found.evidence}
    weights = seen["c"].merge(rows[["key", "ood", "auroc"]].rename(columns={"auroc": "value"}), on=["key", "ood"])
    weights["value"] *= weights["weight"]
    sums = weights.groupby(["place", "id"])["value"].sum().groupby("place").mean()
    assert sums.to_dict() == pytest.approx(wanted)


def test_of_candidates_each_pair_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The winner against the next, as if these two were the sides of a claim."""
    keys = [f"{training} {seed}" for training in ("supcon", "simclr", "cross_entropy") for seed in range(3)]
    scores = same_id(drawn(keys, {"a": 40}))
    at_hand(monkeypatch, scores)
    rows = made(scores)
    (line,) = judged(rows, ImageErrors(Store(Path())), among=("training",), winner=SUPCON).evidence
    left, right = ({"training": each} for each in line.pair.split(" against "))
    (two,) = judged(rows, ImageErrors(Store(Path())), left=left, right=right).evidence
    assert line.images == pytest.approx(two.images)
    assert line.error == pytest.approx(two.error)


def test_id_sets_that_are_observations_have_images_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    words = itertools.product(("supcon", "simclr"), "012", ("cosine",), ("x", "y", "z"))
    scores = same_id(drawn([" ".join(each) for each in words], {"a": 15}))
    at_hand(monkeypatch, scores)
    sides_ = {"left": SUPCON, "right": SIMCLR}
    (like_these,) = judged(made(scores), ImageErrors(Store(Path())), **sides_).evidence
    (these,) = judged(made(scores), ImageErrors(Store(Path())), **sides_, ids="these").evidence
    assert np.isnan(like_these.images)
    known = [judged(made(scores), ImageErrors(Store(Path())), **sides_, of={"id": id_}) for id_ in ("x", "y", "z")]
    each = [one.evidence[0].images for one in known]
    assert these.images == pytest.approx(np.sqrt(np.square(each).sum()) / 3)


@pytest.mark.parametrize("claim", [{"value": "fpr95_id"}, {"pick": "best"}])
def test_where_numbers_are_no_means_over_images_there_is_none(
    monkeypatch: pytest.MonkeyPatch, claim: dict[str, Any]
) -> None:
    scores = same_id(drawn([f"{training} {seed}" for training in ("supcon", "simclr") for seed in range(3)], {"a": 9}))
    at_hand(monkeypatch, scores)
    rows = made(scores).assign(fpr95_id=lambda rows: 1 - rows["auroc"])
    found = judged(rows, ImageErrors(Store(Path())), left=SUPCON, right=SIMCLR, **claim)
    assert np.isnan(found.evidence[0].images)
    assert "is in no error" in verdicts.caption([found])


@pytest.mark.slow
def test_a_claim_errs_no_more_often_than_it_says_where_runs_share_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two detectors that are equally good on all images, not on these: with runs alone the verdict errs."""
    rng, count, n = np.random.default_rng(1), 100, 60
    with_, without = [], []
    for _ in range(count):
        left, right = ((rng.normal(0, 1, n), rng.normal(1, 1, n)) for _ in range(2))  # of images, in all runs alike
        scores: Scores = {}
        for training, (id_, ood) in (("supcon", left), ("simclr", right)):
            for seed in range(5):
                shift = rng.normal(0, 0.05)
                scores[f"{training} {seed}", "a"] = (id_ + rng.normal(0, 0.3, n), ood + shift + rng.normal(0, 0.3, n))
        at_hand(monkeypatch, scores)
        rows, claim = fast(scores), {"left": SUPCON, "right": SIMCLR, "relation": "at_least", "margin": 0.0}
        with_.append(judged(rows, ImageErrors(Store(Path())), **claim).state)
        without.append(judged(rows, None, **claim).state)
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / count)
    for state in (HOLDS, FAILS):
        assert with_.count(state) / count <= most
        assert without.count(state) / count > 0.2
    assert with_.count(OPEN) / count > 0.8


def fast(scores: Scores) -> pd.DataFrame:
    rows = made({name: (np.zeros(1), np.zeros(1)) for name in scores})
    return rows.assign(auroc=[placements(*each)[0].mean() for each in scores.values()])


def test_more_runs_do_not_help_where_images_are_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    images_ = {training: (rng.normal(0, 1, 25), rng.normal(1, 1, 25)) for training in ("supcon", "simclr")}
    scores: Scores = {
        (f"{training} {seed}", "a"): tuple(each + rng.normal(0, 0.02, 25) for each in of)  # type: ignore[misc]
        for training, of in images_.items()
        for seed in range(4)
    }
    at_hand(monkeypatch, scores)
    found = judged(fast(scores), ImageErrors(Store(Path())), left=SUPCON, right=SIMCLR, relation="at_least", margin=0.0)
    assert found.state == OPEN
    assert found.evidence[0].more == verdicts.MOST
    assert "the test images are too few for over 1000 more runs to decide it" in found.text()


CLAIM = {"says": "so", "left": {"distance": "cosine"}, "right": {"distance": "knn(k=3)"}}
FEW = {"outliers": None, "training": "cross_entropy", "clustering": "labels", "threshold": "pooled", "posthoc": None}


@pytest.mark.slow
def test_a_study_keeps_the_scores_of_its_claims_and_their_errors_beside_its_rows(trained: None, tmp_path: Path) -> None:
    """Rows that travel without their store have the same verdict; rows that are other rows do not take it."""
    path = write(tmp_path / "s.yaml", **FEW, seed=[0, 1, 2], claims={"c": CLAIM}, scores={"claims": True})
    assert call("run", path, "--device", "cpu", "--rows-only").exit_code == 0
    first = call("verdict", path).output
    assert "of images)" in first
    results = Results(tmp_path / "results" / "s")
    kept = results.image_errors()
    assert kept is not None
    assert set(kept["claim"]) == {"c"}
    (tmp_path / "results" / "store").rename(tmp_path / "gone")
    assert call("verdict", path).output == first
    rows = results.read().assign(key="other")
    found = verdicts.verdict(rows, "c", ClaimSpec(**CLAIM), images=ImageErrors(None, kept))  # type: ignore[arg-type]
    assert np.isnan(found.evidence[0].images)


def test_a_paired_error_is_that_of_many_draws_of_images() -> None:
    """By simulation: the deviation of the difference over draws of images is what one draw says on average."""
    rng, n = np.random.default_rng(5), 200
    differences, errors = [], []
    for _ in range(300):
        base = rng.normal(0, 1, n), rng.normal(1, 1, n)
        pair = [[each + rng.normal(0, noise, n) for each in base] for noise in (0.3, 0.8)]
        (a, b), (c, d) = (placements(*each) for each in pair)
        differences.append((a - c).mean())
        errors.append((a - c).var(ddof=1) / n + (b - d).var(ddof=1) / n)
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(differences), rel=0.15)
    assert np.mean(differences) == pytest.approx(norm.cdf(1 / np.sqrt(2.18)) - norm.cdf(1 / np.sqrt(3.28)), abs=0.01)


def test_what_a_claim_compares_is_what_its_verdict_reads() -> None:
    rows = made(same_id(drawn(["supcon 0", "simclr 0", "cross_entropy 0"], {"a": 9})))
    claim = ClaimSpec(says="so", left=SUPCON, right=CE)  # type: ignore[arg-type]
    assert set(sides.compared(rows, claim)["training"]) == {"supcon", "cross_entropy"}

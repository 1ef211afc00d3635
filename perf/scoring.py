"""How fast scoring is: our time beside a peer's, on synthetic features, and our share of what the machine can do.

    python perf/scoring.py                          everything at full size: about an hour on two cores
    python perf/scoring.py --size 0.1 --only knn    a tenth of the rows, the rows of the table named knn...
    python perf/scoring.py --device cuda            our side on a CUDA device, the libraries on the CPU

50,000 x 512 training features of 10 or 100 classes, 10,000 ID test items, six OOD sets of 10,000. Each
library runs in its own process, in turns, and what they computed is compared before a time counts. Times are
medians; the share is the time that the matrix products (or the reading of memory) of the work need at the rate
measured in the same run, by our time. Ends with 1 where a row falls short. Ratios are the result: seconds
are the machine's. Needs faiss; memory is measured on Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measure import Machine, Peak, Prepare, Scale, Work, anonymous, in_turns, machine

KS = (1, 5, 10, 50, 200)
GRID_KS = (1, 10, 50, 200)
ITERATIONS = 20
SEED = 0
OOD_SETS = 6
REFERENCE = 2000  # held-out ID items that the grid's thresholds are set on
LEVELS = (0.8, 0.9, 0.95, 0.99)


# ---- synthetic features ---------------------------------------------------------------------------


class Data(NamedTuple):
    train: Any  # (N, D) float32
    y: Any  # (N,) int64
    val: Any
    test: Any
    ood: list[Any]


def features(scale: Scale, classes: int) -> Data:
    """Return classes about their own means within a spectrum that falls tenfold; OOD sets lie elsewhere."""
    import torch

    rng = torch.Generator().manual_seed(SEED)
    spread = torch.logspace(0, -1, scale.dim)
    axes = torch.linalg.qr(torch.randn(scale.dim, scale.dim, generator=rng)).Q

    def means(count: int) -> Any:
        return torch.randn(count, scale.dim, generator=rng) * spread * 0.5

    def draw(rows: int, centers: Any) -> tuple[Any, Any]:
        y = torch.arange(rows) % len(centers)
        return (centers[y] + torch.randn(rows, scale.dim, generator=rng) * spread) @ axes + 0.3, y

    known = means(classes)
    train, y = draw(scale.rows(50_000), known)
    test, val = draw(scale.rows(10_000), known)[0], draw(scale.rows(REFERENCE), known)[0]
    ood = [draw(scale.rows(10_000), known[:5] + (i + 1) / OOD_SETS * means(5))[0] for i in range(OOD_SETS)]
    return Data(train, y, val, test, ood)


def ours(scale: Scale, classes: int) -> Data:
    """Return the features on the device of our side."""
    data = features(scale, classes)
    train, y, val, test = (each.to(scale.device) for each in data[:4])
    return Data(train, y, val, test, [each.to(scale.device) for each in data.ood])


def plugin(room: str, name: str, **params: Any) -> Any:
    from oodbench.study.registry import Registry

    return Registry().load(room, name)(**params)


# ---- Mahalanobis --------------------------------------------------------------------------------------


def mahalanobis_ours(scale: Scale, classes: int) -> Work:
    data = ours(scale, classes)
    clusters = plugin("clustering", "labels").fit(data.train, data.y, SEED)
    score = plugin("distance", "mahalanobis").fit(data.train, clusters)
    return lambda: score(data.test).score.cpu().numpy()


def mahalanobis_pytorch_ood(scale: Scale, classes: int) -> Work:
    """Half the square under the inverse of the sum, not the mean, of outer products."""
    import torch
    from pytorch_ood.detector import Mahalanobis

    data = features(scale, classes)
    detector = Mahalanobis(None).fit_features(data.train, data.y)
    factor = 2 * len(data.train)
    return lambda: factor * torch.cat([detector.predict_features(rows) for rows in data.test.split(256)]).numpy()


# ---- kNN ------------------------------------------------------------------------------------------------


def knn_queries(scale: Scale) -> tuple[Any, Any]:
    data = features(scale, 10)
    return data.train, data.test[: scale.rows(4096)]


def knn_ours(scale: Scale, ks: tuple[int, ...], column: int) -> Work:
    """Return the scores under one of several k, all of which are computed."""
    train, x = (each.to(scale.device) for each in knn_queries(scale))
    knn = type(plugin("distance", "knn"))
    score = knn.fit_together([knn(k=min(k, len(train))) for k in ks], train, one_cluster(train))
    return lambda: [each.score.cpu().numpy() for each in score(x)][column]


def one_cluster(train: Any) -> Any:
    return plugin("clustering", "one").fit(train, None, SEED)


def knn_pytorch_ood(scale: Scale, k: int) -> Work:
    import torch
    from pytorch_ood.detector import KNN

    train, x = knn_queries(scale)
    knn = KNN(None, k=min(k, len(train)), normalize=False)
    knn.fit_features(train, torch.zeros(len(train), dtype=torch.int64))
    return lambda: np.asarray(knn.predict_features(x))


def knn_faiss(scale: Scale, k: int) -> Work:
    import faiss

    train, x = knn_queries(scale)
    index = faiss.IndexFlatL2(train.shape[1])
    index.add(train.numpy())
    return lambda: np.sqrt(index.search(x.numpy(), min(k, len(train)))[0][:, -1])


# ---- k-means --------------------------------------------------------------------------------------------


def kmeans_ours(scale: Scale, k: int) -> Work:
    train = ours(scale, 10).train
    means = plugin("clustering", "kmeans", k=k, restarts=1, iterations=ITERATIONS)
    return lambda: means.fit(train, None, SEED).assign.cpu().numpy()


def kmeans_sklearn(scale: Scale, k: int) -> Work:
    from sklearn.cluster import KMeans

    train = features(scale, 10).train.numpy()
    return lambda: KMeans(k, n_init=1, max_iter=ITERATIONS, random_state=SEED).fit(train).labels_.astype(np.int64)


# ---- one iteration of expectation-maximisation ----------------------------------------------------------


def parts(data: Data, k: int) -> Any:
    """Return k groups (N,): each class in k / 10 parts."""
    import torch

    return data.y * (k // 10) + torch.arange(len(data.y), device=data.y.device) // 10 % (k // 10)


def gmm_floor(data: Data) -> float:
    return 1e-6 * float(data.train.var(0).mean())


def gmm_ours(scale: Scale, kind: str, k: int) -> Work:
    """Return the mean log-likelihood under the start, of an iteration of both steps."""
    from oodbench.toolkit import mixtures as mixture

    data = ours(scale, 10)
    em = {"tied": mixture.Tied, "full": mixture.Full}[kind](data.train - data.train.mean(0), gmm_floor(data))
    start = em.start(parts(data, k), k)
    return lambda: em.step(start)[1]


def gmm_sklearn(scale: Scale, kind: str, k: int) -> Work:
    """Its two steps, which are private: a fit would add k-means and a third half step."""
    from sklearn.mixture import GaussianMixture

    data = features(scale, 10)
    x, shares = data.train.numpy(), np.eye(k, dtype=np.float32)[parts(data, k).numpy()]
    mixture = GaussianMixture(k, covariance_type=kind, reg_covar=gmm_floor(data))

    def work() -> float:
        likelihood, log_shares = mixture._e_step(x)
        mixture._m_step(x, log_shares)
        mixture.weights_, mixture.means_, mixture.covariances_, mixture.precisions_cholesky_ = start
        return float(likelihood)

    mixture._initialize(x, shares)
    start = mixture._get_parameters()
    return work


# ---- metrics --------------------------------------------------------------------------------------------


def score_pairs(scale: Scale, digits: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return 150 pairs of ID and OOD scores, 25 scorers on 6 sets, rounded to so many digits."""
    rng = np.random.default_rng(SEED)
    pairs = []
    for _ in range(25):
        id_ = rng.gamma(4, size=scale.rows(10_000))
        ood = [rng.gamma(4, size=scale.rows(10_000)) + shift for shift in np.linspace(0, 5, OOD_SETS)]
        pairs += [(id_, each) for each in ood]
    return pairs if digits is None else [(a.round(digits), b.round(digits)) for a, b in pairs]


def metrics_ours(scale: Scale, digits: int | None, names: tuple[str, ...]) -> Work:
    from oodbench.scoring import metrics

    pairs = score_pairs(scale, digits)
    return lambda: np.array([[found[name] for name in names] for found in (metrics.ranking(*each) for each in pairs)])


SKLEARN_METRICS = ("auroc", "aupr_in_ap", "aupr_out_ap", "fpr95_id", "fpr95_ood")
PYTORCH_OOD_METRICS = ("auroc", "aupr_in", "aupr_out", "fpr95_ood")


def metrics_sklearn(scale: Scale, digits: int | None) -> Work:
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    pairs = score_pairs(scale, digits)

    def one(id_: np.ndarray, ood: np.ndarray) -> list[float]:
        scores = np.concatenate([id_, ood])
        is_ood = np.arange(len(scores)) >= len(id_)
        fpr, tpr, _ = roc_curve(is_ood, scores, drop_intermediate=False)
        accepted = np.round((1 - fpr) * len(id_))  # counts, so that a share of exactly 0.95 is one
        return [
            roc_auc_score(is_ood, scores),
            average_precision_score(~is_ood, -scores),
            average_precision_score(is_ood, scores),
            1 - tpr[accepted >= 0.95 * len(id_)].max(),
            fpr[tpr >= 0.95].min(),
        ]

    return lambda: np.array([one(*each) for each in pairs])


def metrics_pytorch_ood(scale: Scale, digits: int | None) -> Work:
    import torch

    pairs = score_pairs(scale, digits)

    def one(id_: np.ndarray, ood: np.ndarray) -> list[float]:
        found = ood_metrics(torch.from_numpy(id_), torch.from_numpy(ood))
        return [found[name] for name in ("AUROC", "AUPR-IN", "AUPR-OUT", "FPR95TPR")]

    return lambda: np.array([one(*each) for each in pairs])


def ood_metrics(id_: Any, ood: Any) -> dict[str, float]:
    import torch
    from pytorch_ood.metrics import OODMetrics

    labels = torch.cat([torch.zeros(len(id_)), -torch.ones(len(ood))])
    found: dict[str, float] = OODMetrics().update(torch.cat([id_, ood]), labels).compute()
    return found


# ---- the grid of one bank ---------------------------------------------------------------------------------

COMPARED = ("labels", "kmeans 10", "kmeans 100", "–")  # what both sides group alike; AUROC by (grouping, distance, set)


def counts(scale: Scale) -> tuple[int, int]:
    """Return the numbers of clusters, 10 and 100 unless the training set is tiny."""
    return min(10, scale.rows(50_000) // 20), min(100, scale.rows(50_000) // 10)


def grid_ours(scale: Scale) -> Work:
    import torch

    from oodbench.scoring import detectors as scoring
    from oodbench.study.grid import Detector
    from oodbench.study.settings import PLAIN, Space

    data = features(scale, 10)
    few, many = counts(scale)
    limits = {"restarts": 1, "iterations": ITERATIONS}
    clusterings = {
        "labels": plugin("clustering", "labels"),
        "kmeans 10": plugin("clustering", "kmeans", k=few, **limits),
        "kmeans 100": plugin("clustering", "kmeans", k=many, **limits),
        "spherical": plugin("clustering", "spherical_kmeans", k=few, **limits),
        "gmm diag": plugin("clustering", "gmm", k=few, covariance="diag", **limits),
        "gmm tied": plugin("clustering", "gmm", k=few, covariance="tied", **limits),
    }
    distances = {
        "euclidean": plugin("distance", "euclidean"),
        "cosine": plugin("distance", "cosine"),
        "mahalanobis shared": plugin("distance", "mahalanobis"),
        "mahalanobis diagonal": plugin("distance", "mahalanobis", covariance="diagonal"),
    }
    pairs = [((c, d), clusterings[c], distances[d]) for c in clusterings for d in distances]
    pairs += [(("–", f"knn {k}"), None, plugin("distance", "knn", k=min(k, len(data.train)))) for k in GRID_KS]
    thresholds = [plugin("threshold", "pooled", level=level) for level in LEVELS]
    detectors = {Detector(Space(), c, d, t): title for title, c, d in pairs for t in thresholds}

    def known(x: Any) -> scoring.Known:
        return scoring.Known({PLAIN: {"penultimate": x[None]}}, torch.arange(len(x)) % 10)

    bank = scoring.Bank(
        fit={"penultimate": data.train[None]},
        y=data.y,
        classes=10,
        test=known(data.test),
        reference=known(data.val),
        ood={f"ood {i}": known(x).layers for i, x in enumerate(data.ood)},
        validation={},
    )

    def work() -> dict[tuple[str, str, str], float]:
        how = scoring.How(torch.device(scale.device))
        found = list(scoring.judged(list(detectors), bank, list(bank.ood), SEED, how))
        errors = [each.error for each in found if each.error]
        if errors:
            raise RuntimeError(errors[0])
        return {(*detectors[each.detector], each.ood): each.numbers["auroc"] for each in found}

    return work


def grid_peers(scale: Scale) -> Work:
    """Return the same cells by scikit-learn and pytorch-ood: each detector fitted once, each set scored once by it."""
    import torch
    from pytorch_ood.detector import KNN
    from sklearn.metrics.pairwise import cosine_distances, euclidean_distances

    data = features(scale, 10)
    sets = {"val": data.val, "test": data.test} | {f"ood {i}": x for i, x in enumerate(data.ood)}

    def knn(k: int) -> Callable[[Any], Any]:
        detector = KNN(None, k=min(k, len(data.train)), normalize=False)
        return detector.fit_features(data.train, torch.zeros(len(data.train), dtype=torch.int64)).predict_features

    def scorers() -> Iterator[tuple[tuple[str, str], Callable[[Any], Any]]]:
        for name, assign in peers_clusterings(scale, data):
            centroids = np.stack([data.train.numpy()[assign == k].mean(0) for k in range(assign.max() + 1)])
            std = (data.train.numpy() - centroids[assign]).std(0)
            yield (name, "euclidean"), lambda x, c=centroids: euclidean_distances(x.numpy(), c).min(1)
            yield (name, "cosine"), lambda x, c=centroids: cosine_distances(x.numpy(), c).min(1)
            yield (name, "mahalanobis shared"), peers_mahalanobis(data.train, assign)
            yield (
                (name, "mahalanobis diagonal"),
                lambda x, c=centroids, s=std: euclidean_distances(x.numpy() / s, c / s, squared=True).min(1),
            )
        for k in GRID_KS:
            yield ("–", f"knn {k}"), knn(k)

    def work() -> dict[tuple[str, str, str], float]:
        found = {}
        for title, score in scorers():
            scores = {name: torch.as_tensor(score(x)) for name, x in sets.items()}
            np.quantile(scores["val"].numpy(), LEVELS)
            for name in list(sets)[2:]:
                found[*title, name] = ood_metrics(scores["test"], scores[name])["AUROC"]
        return found

    return work


def peers_mahalanobis(train: Any, assign: np.ndarray) -> Callable[[Any], Any]:
    import torch
    from pytorch_ood.detector import Mahalanobis

    detector = Mahalanobis(None).fit_features(train, torch.from_numpy(assign))
    return lambda x: torch.cat([detector.predict_features(rows) for rows in x.split(256)])


def peers_clusterings(scale: Scale, data: Data) -> Iterator[tuple[str, np.ndarray]]:
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture
    from sklearn.preprocessing import normalize

    from oodbench.toolkit.seeds import seed_of  # the seed that the grid gives its clusterings

    x, seed = data.train.numpy(), seed_of(SEED, "clustering")
    few, many = counts(scale)
    means = partial(KMeans, n_init=1, max_iter=ITERATIONS, random_state=seed)
    yield "labels", data.y.numpy()
    yield "kmeans 10", means(few).fit_predict(x).astype(np.int64)
    yield "kmeans 100", means(many).fit_predict(x).astype(np.int64)
    yield "spherical", means(few).fit_predict(normalize(x)).astype(np.int64)
    for kind in ("diag", "tied"):
        floor = 1e-6 * float(x.var(0).mean())
        mixture = GaussianMixture(few, covariance_type=kind, max_iter=ITERATIONS, reg_covar=floor, random_state=seed)
        yield f"gmm {kind}", np.unique(mixture.fit_predict(x), return_inverse=True)[1]


def knn_product(scale: Scale) -> float:
    """Return the FLOP of the matrix product that the grid's kNN needs, once for all k."""
    scored = scale.rows(REFERENCE) + (1 + OOD_SETS) * scale.rows(10_000)
    return 2.0 * scored * scale.rows(50_000) * scale.dim


# ---- memory, and a study that is finished --------------------------------------------------------------------


def mapped_peak(scale: Scale, times: int) -> Work:
    """Return the peak of anonymous memory, in MB, of statistics and kNN from a mapped file of so many times n rows."""
    import torch

    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "bank.npy"
    rows = times * scale.rows(50_000)
    stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, scale.dim))
    for start in range(0, rows, 8192):
        block = np.random.default_rng(start).normal(size=stored[start : start + 8192].shape)
        stored[start : start + 8192] = block
    del stored

    def work() -> float:
        assert folder  # lives as long as the work
        train = torch.from_numpy(np.load(path, mmap_mode="c"))
        x = train[: scale.rows(2048)].clone()
        with Peak() as peak:
            clusters = plugin("clustering", "labels").fit(train, torch.arange(rows) % 10, SEED)
            plugin("distance", "mahalanobis").fit(train, clusters)(x)
            plugin("distance", "knn", k=10).fit(train, clusters)(x)
        return peak.mb

    return work


def budget(scale: Scale) -> int:
    return int(500e6 * scale.size)


def budget_peak(scale: Scale) -> Work:
    """Return the anonymous memory, in MB, that scoring takes of a mapped bank of 4 times the budget, 2048 wide."""
    import torch

    from oodbench.scoring import detectors as scoring
    from oodbench.study.grid import Detector
    from oodbench.study.settings import PLAIN, Space

    folder = tempfile.TemporaryDirectory()
    width = 2048
    rows = 4 * budget(scale) // (4 * width)

    def mapped(name: str, items: int) -> Any:
        path = Path(folder.name) / f"{name}.npy"
        stored = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(items, width))
        for start in range(0, items, 4096):
            stored[start : start + 4096] = np.random.default_rng(start).normal(size=stored[start : start + 4096].shape)
        del stored
        return torch.from_numpy(np.load(path, mmap_mode="c"))[None]

    def known(name: str) -> scoring.Known:
        return scoring.Known({PLAIN: {"penultimate": mapped(name, 1000)}}, torch.arange(1000) % 10)

    train, labels, threshold = mapped("train", rows), plugin("clustering", "labels"), plugin("threshold", "pooled")
    distances = [plugin("distance", name) for name in ("euclidean", "cosine", "mahalanobis")]
    spaces = [Space(), Space(unit=True, zscore=True)]
    detectors = [Detector(space, labels, distance, threshold) for space in spaces for distance in distances]
    detectors += [Detector(space, None, plugin("distance", "knn", k=10), threshold) for space in spaces]
    sets = {"ood": known("ood").layers}
    bank = scoring.Bank({"penultimate": train}, torch.arange(rows) % 10, 10, known("id"), known("val"), sets, {})

    def work() -> float:
        assert folder  # lives as long as the work
        before = anonymous()
        with Peak() as peak:
            how = scoring.How(torch.device("cpu"), budget(scale))
            errors = [each.error for each in scoring.judged(detectors, bank, ["ood"], SEED, how) if each.error]
        if errors:
            raise RuntimeError(errors[0])
        return peak.mb - before

    return work


def budget_itself(scale: Scale) -> Work:
    return lambda: budget(scale) / 1e6


STUDY = """
image: {size: 8, channels: 1}
id: {blobs: {groups: 3, count: 120}}
ood: {near: {blobs: {groups: 3, count: 60, shift: 60.0}}}
encoder: {resnet18: {width: 2}}
recipe: {epochs: 1, batch: 64, lr: 0.05, warmup: 0, augment: {crop: null, flip: 0, jitter: null, gray: 0}}
reference: {val: 0.25}
seed: [SEEDS]
training: [cross_entropy]
clustering: [labels, {kmeans: {restarts: 1}}, one, spherical_kmeans]
distance: [cosine, euclidean]
threshold: [{pooled: {level: [LEVELS]}}]
"""


def study_of(cells: int, folder: Path) -> Path:
    """Write a study of about so many cells (4 clusterings x 2 distances x levels x seeds) and return its file."""
    levels = min(250, max(1, cells // 8))
    seeds = max(1, cells // (8 * levels))
    text = STUDY.replace("SEEDS", ", ".join(map(str, range(seeds))))
    path = folder / "study.yaml"
    path.write_text(text.replace("LEVELS", ", ".join(f"{0.5 + 0.49 * i / levels:.6f}" for i in range(levels))))
    return path


def rerun_ours(scale: Scale) -> Work:
    """Return what a study says when it is run again and has nothing to do."""
    folder = tempfile.TemporaryDirectory()
    path = study_of(scale.rows(10_000), Path(folder.name))
    command = [sys.executable, "-m", "oodbench", "run", str(path)]
    subprocess.run(command, cwd=folder.name, check=True, capture_output=True)

    def work() -> list[str]:
        return subprocess.run(command, cwd=folder.name, check=True, capture_output=True, text=True).stdout.splitlines()

    return work


def python_alone(scale: Scale) -> Work:
    def work() -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    return work


# ---- rows ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A work, what it is held against, and how large the ratio has to be."""

    key: str
    work: str
    against: str
    bar: float
    ours: Prepare
    theirs: Prepare | None  # None: the machine's limit
    same: Callable[[Any, Any], None] = lambda ours, theirs: None  # raises where they did not compute the same
    flop: Callable[[Scale], float] = lambda scale: 0.0  # of the matrix products that the work needs
    read: Callable[[Scale], float] = lambda scale: 0.0  # bytes of memory that it has to read
    kind: str = "faster"  # faster: theirs / ours >= bar; slower: ours / theirs <= bar; memory; seconds: ours <= bar


def close(rtol: float, atol: float = 0.0) -> Callable[[Any, Any], None]:
    return partial(np.testing.assert_allclose, rtol=rtol, atol=atol)


def same_cells(ours: dict[Any, float], theirs: dict[Any, float]) -> None:
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if key[0] in COMPARED:
            np.testing.assert_allclose(value, theirs[key], atol=1e-3, err_msg=str(key))


def computed(lines: list[str]) -> str:
    """Return what is wrong with a finished study's second run, or nothing."""
    return "" if any(line.startswith("0 trained, 0 cells scored") for line in lines) else "something was computed"


def rows_of_train(scale: Scale, times: float = 1.0) -> float:
    return times * scale.rows(50_000) * scale.dim


def table() -> list[Row]:
    """Return all rows, the quick ones first."""
    rows = []
    for classes, bar in ((10, 15.0), (100, 100.0)):
        rows.append(
            Row(
                f"mahalanobis-{classes}",
                f"Mahalanobis scores, shared covariance, {classes} classes",
                "pytorch-ood, batches of 256",
                bar,
                partial(mahalanobis_ours, classes=classes),
                partial(mahalanobis_pytorch_ood, classes=classes),
                close(2e-3),
                flop=lambda s, c=classes: 2.0 * s.rows(10_000) * s.dim * (s.dim + c),
            )
        )

    def knn_flop(scale: Scale) -> float:
        return 2.0 * min(scale.rows(4096), scale.rows(10_000)) * rows_of_train(scale)

    rows += [
        Row(
            "knn-five",
            "kNN, exact, five values of k in one pass",
            "pytorch-ood's kNN for one k",
            1.8,
            partial(knn_ours, ks=KS, column=KS.index(50)),
            partial(knn_pytorch_ood, k=50),
            close(1e-5),
            knn_flop,
        ),
        Row(
            "knn-one",
            "kNN, exact, one k",
            "faiss FlatL2, all rows in one call",
            1.3,
            partial(knn_ours, ks=(50,), column=0),
            partial(knn_faiss, k=50),
            close(1e-3),
            knn_flop,
        ),
    ]
    for kind, k, bar in (("tied", 10, 10.0), ("tied", 100, 40.0), ("full", 10, 1.4)):
        rows.append(
            Row(
                f"gmm-{kind}-{k}",
                f"GMM, one EM iteration, {kind}, k = {k}",
                "scikit-learn",
                bar,
                partial(gmm_ours, kind=kind, k=k),
                partial(gmm_sklearn, kind=kind, k=k),
                close(1e-4),
                flop=lambda s, kind=kind, k=k: 2 * (2.0 if kind == "tied" else s.dim) * k * rows_of_train(s),
                read=lambda s: 4 * rows_of_train(s),
            )
        )
    for k in (10, 100):
        rows.append(
            Row(
                f"kmeans-{k}",
                f"k-means, k = {k}",
                "scikit-learn",
                0.9,
                partial(kmeans_ours, k=k),
                partial(kmeans_sklearn, k=k),
                close(0),
                flop=lambda s, k=k: ITERATIONS * 2.0 * k * rows_of_train(s),
                read=lambda s: ITERATIONS * 4 * rows_of_train(s),
            )
        )
    for title, digits in (("without ties", None), ("with ties", 2)):
        for name, against, bar, names, theirs, rtol in (
            ("sklearn", "scikit-learn", 15.0, SKLEARN_METRICS, metrics_sklearn, 1e-9),
            ("pytorch-ood", "pytorch-ood's OODMetrics", 4.0, PYTORCH_OOD_METRICS, metrics_pytorch_ood, 1e-6),
        ):
            rows.append(
                Row(
                    f"metrics-{name}-{title.split()[0]}",
                    f"AUROC, AUPR-In, AUPR-Out, FPR95 of 150 cells, {title}",
                    against,
                    bar,
                    partial(metrics_ours, digits=digits, names=names),
                    partial(theirs, digits=digits),
                    close(rtol, 1e-9),
                )
            )
    rows += [
        Row(
            "memory",
            "class statistics and kNN from a mapped file of 2n rows, MB",
            "n rows",
            1.05,
            partial(mapped_peak, times=2),
            partial(mapped_peak, times=1),
            kind="memory",
        ),
        Row(
            "budget",
            "a grid on a mapped bank of 4 times the budget, MB",
            "the budget",
            1.0,
            budget_peak,
            budget_itself,
            kind="memory",
        ),
        Row(
            "rerun",
            "a finished study of 10,000 cells run again",
            "python -c pass",
            20.0,
            rerun_ours,
            python_alone,
            kind="seconds",
        ),
        Row(
            "grid-limit",
            "the grid of one bank",
            "its kNN's matrix product",
            2.8,
            grid_ours,
            None,
            flop=knn_product,
            kind="slower",
        ),
        Row(
            "grid-peers",
            "the grid of one bank",
            "scikit-learn and pytorch-ood",
            6.0,
            grid_ours,
            grid_peers,
            same_cells,
            flop=knn_product,
        ),
    ]
    return rows


@dataclass(frozen=True)
class Found:
    """A row of the answer."""

    row: Row
    ours: float  # seconds; MB of a memory row
    theirs: float
    share: float  # of the machine's limit; 0 where none is known
    wrong: str = ""  # why the row falls short whatever the time

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours if self.row.kind == "faster" else self.ours / self.theirs

    @property
    def holds(self) -> bool:
        if self.row.kind == "seconds":
            return self.ours <= self.row.bar and not self.wrong
        return self.ratio >= self.row.bar if self.row.kind == "faster" else self.ratio <= self.row.bar

    @property
    def bar(self) -> str:
        sign, unit = (">=" if self.row.kind == "faster" else "<="), ("s" if self.row.kind == "seconds" else "x")
        return f"{sign} {self.row.bar:g} {unit}"

    def json(self) -> dict[str, Any]:
        unit = "mb" if self.row.kind == "memory" else "s"
        return {
            "work": self.row.work,
            "against": self.row.against,
            f"ours_{unit}": self.ours,
            f"theirs_{unit}": self.theirs,
            "ratio": self.ratio,
            "share": self.share,
            "bar": self.bar,
            "holds": self.holds,
            "wrong": self.wrong,
        }


def measured(row: Row, scale: Scale, rounds: int, limit: Machine) -> Found:
    sides = [row.ours] if row.theirs is None else [row.ours, row.theirs]
    seconds, results = in_turns(sides, scale, rounds, least=3)
    floor = limit.seconds(row.flop(scale), row.read(scale))
    if row.kind == "memory":
        return Found(row, results[0], results[1], 0.0)
    if row.kind == "seconds":
        return Found(row, seconds[0], seconds[1], 0.0, computed(results[0]))
    if row.theirs is None:
        return Found(row, seconds[0], floor, floor / seconds[0])
    row.same(*results)
    return Found(row, seconds[0], seconds[1], floor / seconds[0])


def environment(limit: Machine) -> str:
    import faiss
    import pytorch_ood
    import sklearn
    import torch

    modules = (torch, np, sklearn, faiss, pytorch_ood)
    versions = ", ".join(f"{each.__name__} {each.__version__}" for each in modules)
    rates = f"{limit.product / 1e9:.0f} GFLOP/s float32, {limit.memory / 1e9:.0f} GB/s read"
    return f"{torch.get_num_threads()} threads, {rates}; {versions}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=float, default=1.0, help="share of the rows of data (default 1)")
    parser.add_argument("--dim", type=int, default=512, help="dimensions of the features (default 512)")
    parser.add_argument("--device", default="cpu", help="of our side: cpu, cuda (default cpu); shares are of the CPU")
    parser.add_argument("--rounds", type=int, default=7, help="rounds after the first; 3 in all for slow work")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="rows of these keys, or whose keys go on with a dash")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    given = parser.parse_args()
    chosen = [row for row in table() if any(f"{row.key}-".startswith(f"{key}-") for key in given.only or [row.key])]
    if not chosen:
        parser.error(f"--only: keys are {', '.join(row.key for row in table())}")
    scale, limit = Scale(given.size, given.dim, given.device), machine(given.rounds)
    if not given.json:
        print(environment(limit), flush=True)
        print(f"{'work':62} {'against':36} {'ours':>9} {'theirs':>9} {'ratio':>7} {'bar':>9} {'share':>6}")
    holds = True
    for row in chosen:
        found = measured(row, scale, given.rounds, limit)
        holds &= found.holds
        if given.json:
            print(json.dumps(found.json()), flush=True)
            continue
        share = f"{100 * found.share:.0f} %" if found.share else "–"
        short = "" if found.holds else f"  falls short {found.wrong}".rstrip()
        numbers = f"{found.ours:9.3f} {found.theirs:9.3f} {found.ratio:7.2f} {found.bar:>9} {share:>6}"
        print(f"{row.work:62} {row.against:36} {numbers}{short}", flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())

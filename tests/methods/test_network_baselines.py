"""ODIN and GradNorm against loops of autograd and pytorch-ood, and what the harness gives to whom asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import call
from pytorch_ood import detector as peer
from sklearn.metrics import roc_auc_score
from tiny import write
from torch import Tensor, nn

import oodbench
from oodbench.api import ClassifierHead, Split
from oodbench.errors import UserError
from oodbench.execution.pipeline import Options, Pipeline
from oodbench.execution.runner import Outcome, Runner
from oodbench.scoring import detectors
from oodbench.store.memo import Watch
from oodbench.study import reader
from oodbench.study.grid import Run
from oodbench.study.registry import Registry
from oodbench.study.settings import PLAIN
from oodbench.training import networks
from oodbench.training.weights import plan_of

BLOBS = {"groups": 3, "count": 120}
PEERS = ["GradNorm", "GradUncertainty", "MahalanobisODIN", "MultiMahalanobis", "Gram", "NACUE", "RankFeat"]
BY_NAME = [
    {"pytorch_ood": {"detector": [*PEERS, "MCD"]}},
    {"pytorch_ood": {"detector": "ODIN", "options": {"eps": 0.02, "temperature": 2.0}}},
]
STUDY: dict[str, Any] = {
    **{"outliers": None, "clustering": None, "distance": None, "threshold": ["pooled", "youden"]},
    **{
        "posthoc": [
            {"odin": {"epsilon": 0.02, "temperature": 2.0}},
            "gradnorm",
            "multi_mahalanobis",
            "multi_vim",
            "msp",
            *BY_NAME,
        ]
    },
    **{"validation": {"glyphs": {"count": 40, "size": 8}}, "covariate": {"blobs": BLOBS | {"corrupt": "jpeg-5"}}},
}


def plugin(name: str, **params: Any) -> Any:
    return Registry().load("posthoc", name)(**params)


class Small(nn.Module):
    """A network of float64 that is smooth, so that no sign of a gradient hangs on rounding."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 16, 5), nn.Tanh())
            self.fc = nn.Linear(5, 4)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.fc(self.encoder(x))
        return found


MODEL = Small()
IMAGES = torch.rand(30, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def items() -> Split:
    with torch.no_grad():
        h = MODEL.encoder(IMAGES)
        return Split(h, MODEL.fc(h), None, lambda: iter(IMAGES.split(7)))


def head() -> ClassifierHead:
    weight, bias = MODEL.fc.weight.detach(), MODEL.fc.bias.detach()
    return ClassifierHead(MODEL.fc, weight, bias, lambda x: (MODEL.encoder(x), MODEL(x)))


# ---- arithmetic -----------------------------------------------------------------------------------------------------


def odin(model: Any, x: Tensor, epsilon: float, temperature: float) -> float:
    """Return the score of one image (C, H, W), as the paper writes it."""
    image = x[None].clone().requires_grad_()
    p = (model(image)[0] / temperature).softmax(0)
    (gradient,) = torch.autograd.grad(-p.max().log(), image)
    with torch.no_grad():
        moved = image - epsilon * gradient.sign()
        return 1 - float((model(moved)[0] / temperature).softmax(0).max())


@pytest.mark.parametrize(("epsilon", "temperature"), [(0.0014, 1000.0), (0.1, 1.0), (0.0, 10.0)])
def test_odin_is_the_papers_loop_and_pytorch_oods(epsilon: float, temperature: float) -> None:
    found = plugin("odin", epsilon=epsilon, temperature=temperature).fit(items(), None, head())(items())
    assert found.dtype == torch.float64
    wanted = [odin(MODEL, x, epsilon, temperature) for x in IMAGES]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)
    theirs = peer.ODIN(MODEL, eps=epsilon, temperature=temperature).predict(IMAGES)
    np.testing.assert_allclose(found.numpy(), 1 + theirs.detach().numpy(), rtol=1e-9)
    assert all(each.grad is None for each in MODEL.parameters())


def test_gradnorm_is_pytorch_oods_of_the_last_layer_but_for_a_factor() -> None:
    found = plugin("gradnorm").fit(items(), None, head())(items())
    theirs = peer.GradNorm(MODEL, param_filter=lambda name: name == "fc.weight").predict(IMAGES)
    np.testing.assert_allclose(found.numpy() / theirs.numpy(), (found[0] / theirs[0]).item(), rtol=1e-9)


def test_multi_mahalanobis_is_a_loop_and_pytorch_oods_but_for_a_factor() -> None:
    y = torch.arange(len(IMAGES)) % 3
    depths = [lambda x: x.mean((2, 3)), MODEL.encoder]

    def layers(x: Tensor) -> list[Tensor]:
        return [depth(x) for depth in depths]

    given = items()._replace(y=y)
    fitted = plugin("multi_mahalanobis").fit(given, None, head()._replace(layers=layers))
    found = fitted(items()).numpy()
    with torch.no_grad():
        zs = [depth(IMAGES) for depth in depths]
    wanted = np.zeros(len(IMAGES))
    for z in (each.numpy() for each in zs):
        centers = np.stack([z[y.numpy() == k].mean(0) for k in range(3)])
        inverse = np.linalg.inv(np.cov((z - centers[y]).T, bias=True))
        wanted += [min((each - c) @ inverse @ (each - c) for c in centers) / 2 for each in z]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    theirs = peer.MultiMahalanobis([nn.Identity()] * 2).fit_structured([z.float() for z in zs], y)
    ratio = found / theirs.predict_structured([z.float()[..., None, None] for z in zs]).numpy()
    np.testing.assert_allclose(ratio, len(IMAGES), rtol=1e-3)  # theirs divides a sum of squares by no number of items


def vim_loop(f: np.ndarray, x: np.ndarray, logits: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return ViM's virtual logit of each of x (M, D), for training features f (N, D), as the paper writes it."""
    _, values, axes = np.linalg.svd(f - origin, full_matrices=True)
    left = axes[f.shape[1] // 2 :]
    assert (values[: f.shape[1] // 2] > 0).all()
    norms = [sum((axis @ (each - origin)) ** 2 for axis in left) ** 0.5 for each in f]
    alpha = sum(max(row) for row in logits) / sum(norms)
    return np.array([alpha * sum((axis @ (each - origin)) ** 2 for axis in left) ** 0.5 for each in x])


def test_multi_vim_is_a_loop_and_of_one_depth_vim() -> None:
    depths = [lambda x: x.mean((2, 3)), lambda x: MODEL.encoder[:2](x).mean((2, 3)), MODEL.encoder]
    given = items()._replace(y=torch.arange(len(IMAGES)) % 4)
    other = IMAGES[:9] ** 2
    with torch.no_grad():
        asked = Split(MODEL.encoder(other), MODEL(other), None, lambda: iter(other.split(4)))
        f, x = ([depth(each).numpy() for depth in depths] for each in (IMAGES, other))
    own = head()
    origins = [*(each.mean(0) for each in f[:2]), -np.linalg.pinv(own.weight.numpy()) @ own.bias.numpy()]  # type: ignore[union-attr]
    virtual = [vim_loop(f[i], x[i], given.logits.numpy(), origins[i]) for i in range(3)]
    energy = np.log(np.exp(asked.logits.numpy()).sum(1))

    def layers(x: Tensor) -> list[Tensor]:
        return [depth(x) for depth in depths]

    found = plugin("multi_vim").fit(given, None, own._replace(layers=layers))(asked).numpy()
    np.testing.assert_allclose(found, np.mean(virtual, axis=0) - energy, rtol=1e-9)
    twice = own._replace(layers=lambda x: [*layers(x), MODEL.encoder(x)])
    np.testing.assert_array_equal(plugin("multi_vim").fit(given, None, twice)(asked).numpy(), found)
    one = own._replace(layers=lambda x: [MODEL.encoder(x)])
    theirs = plugin("vim", dims=2).fit(given, None, own)(asked)
    np.testing.assert_allclose(plugin("multi_vim").fit(given, None, one)(asked), theirs, rtol=1e-4)


def test_multi_vim_refuses_a_depth_that_half_of_its_dimensions_hold() -> None:
    flat = head()._replace(layers=lambda x: [x[:, :1].mean((2, 3)).expand(-1, 4), MODEL.encoder(x)])
    with pytest.raises(ValueError, match="half of the dimensions hold all of the 4 features at depth 0"):
        plugin("multi_vim").fit(items(), None, flat)


def test_depths_are_the_last_outputs_of_each_shape_and_the_penultimate_features() -> None:
    model = networks.Trained(
        networks.Network(
            nn.Sequential(
                nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            ),
            {},
        ),
        2,
    )
    x = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = networks.at_depths(model)(x)
    parts = model.network.encoder
    first = parts[1](parts[0](x))
    second = parts[2](first)
    for got, put in zip(found, (first, second, parts[3](second), second), strict=True):
        torch.testing.assert_close(got, put.mean((2, 3)))
    assert torch.autograd.grad(found[0].sum(), x)[0].abs().sum() > 0
    assert not any(part._forward_hooks for part in parts)


# ---- in a study -----------------------------------------------------------------------------------------------------


class Ran:
    def __init__(self, folder: Path) -> None:
        self.path = write(folder / "s.yaml", **STUDY)
        self.outcome: Outcome = Runner(reader.load(self.path), Options(device="cpu"), Watch()).run()
        self.rows = self.outcome.rows
        self.pipeline = Pipeline(reader.load(self.path), Options(device="cpu", cached_only=True), Watch())

    def run(self, training: str) -> Run:
        (found,) = (w.run for w in plan_of(self.pipeline.study).work if w.run.training.name == training)
        return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("network")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_RESULTS", str(folder / "results"))
        yield Ran(folder)


def logits(ran: Ran, run: Run) -> Any:
    """Return a network from images to the logits that a baseline reads, put together anew."""
    model = ran.pipeline.encoders.model(run)

    def passed(x: Tensor) -> Tensor:
        h, out = model(x)
        if "logits" in out:
            return out["logits"]
        probe = ran.pipeline.banks.probe(run)
        assert probe is not None
        return h @ probe.weight.T + probe.bias

    return passed


@pytest.mark.parametrize(("training", "on"), [("cross_entropy", ""), ("simclr", " on linear probe")])
def test_rows_are_the_loop_over_the_prepared_images(ran: Ran, training: str, on: str) -> None:
    run, library = ran.run(training), ran.pipeline.library
    model = logits(ran, run)

    def scores(dataset: Any) -> np.ndarray:
        x = torch.from_numpy(np.array(library.prepared(dataset, "test").x)).permute(0, 3, 1, 2) / 255
        return np.array([odin(model, each, 0.02, 2.0) for each in x])

    id_, shifted = scores(run.id), scores(run.covariate[0])
    rows = ran.rows[ran.rows["posthoc"] == f"odin(temperature=2, epsilon=0.02){on}"]
    assert (rows["status"] == "ok").all()
    assert len(rows) == 2 * len(run.sets)
    for row in rows.to_dict("records"):
        ood = scores(run.sets[row["ood"]])
        for name, known in (("auroc", id_), ("fs_auroc", np.r_[id_, shifted])):
            truth = np.r_[np.zeros(len(known)), np.ones(len(ood))]
            assert row[name] == pytest.approx(roc_auc_score(truth, np.r_[known, ood]), abs=2e-3)  # signs may round
    for name in ("multi_mahalanobis", "multi_vim"):
        deep = ran.rows[ran.rows["posthoc"] == f"{name}{on}"]
        assert (deep["status"] == "ok").all(), deep["error"].unique()
        assert len(deep) == len(rows)
    plain = ran.rows[ran.rows["posthoc"] == f"msp{on}"]
    assert set(plain["auroc"]).isdisjoint(rows["auroc"])


@pytest.mark.parametrize("on", ["", " on linear probe"])
def test_rows_of_pytorch_ood_by_name(ran: Ran, on: str) -> None:
    def of(label: str) -> Any:
        return ran.rows[ran.rows["posthoc"] == label + on].sort_values(["ood", "threshold"])

    ours, theirs = (
        of(label) for label in ("odin(temperature=2, epsilon=0.02)", "pytorch_ood(ODIN, eps=0.02, temperature=2.0)")
    )
    np.testing.assert_allclose(theirs["auroc"], ours["auroc"], atol=2e-3)  # signs may round
    for name in PEERS:
        rows = of(f"pytorch_ood({name})")
        assert (rows["status"] == "ok").all(), rows["error"].unique()
        assert len(rows) == len(ours)
        assert rows["auroc"].between(0, 1).all()
    assert of("pytorch_ood(MCD)")["error"].str.contains("MCD needs dropout").all()


def test_the_module_is_the_network(ran: Ran) -> None:
    """Its parameters are those of the encoder, its heads and the probe; in evaluation mode, in any memory layout."""
    for training, own in (("cross_entropy", 0), ("simclr", 2)):
        run, pipeline = ran.run(training), ran.pipeline
        model, head = pipeline.encoders.model(run), pipeline.bank(run, [PLAIN], baselines=True, network=True).head
        assert head is not None
        assert head.network is not None
        assert head.module is not None
        x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(head.module(x), head.network(x)[1])
        assert len(list(head.module.parameters())) == len(list(model.parameters())) + own
        assert not any(each.training for each in head.module.modules())
        assert head.parts == tuple(model.network.encoder.children())


def test_a_bank_has_images_where_a_baseline_asks_for_them(ran: Ran) -> None:
    run, pipeline = ran.run("cross_entropy"), ran.pipeline
    bank = pipeline.bank(run, [PLAIN], baselines=True, network=True)
    assert bank.images.keys() == bank.sets.keys() | {detectors.TRAIN}
    assert bank.head is not None
    assert bank.head.network is not None
    every = {name: layers[PLAIN] for name, layers in bank.sets.items()} | {detectors.TRAIN: bank.fit}
    for name, layers in every.items():
        with torch.no_grad():
            found = [bank.head.network(x) for x in bank.images[name]()]
        assert all(len(h) <= 128 for h, _ in found)
        for i, layer in enumerate(("penultimate", "logits")):
            torch.testing.assert_close(torch.cat([each[i] for each in found]), layers[layer][0], rtol=1e-4, atol=1e-5)
    without = pipeline.bank(run, [PLAIN], baselines=True)
    assert without.images == {}
    assert without.head is not None
    assert without.head.network is None


def test_features_alone_leave_it_out(ran: Ran) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
    with pytest.raises(UserError, match="odin passes images through the network, and features come without them"):
        oodbench.detector("odin").fit(x, y)
    bank = ran.pipeline.bank(ran.run("cross_entropy"), [PLAIN], baselines=True)
    with pytest.raises(ValueError, match="odin passes images through the network, and ID train is features alone"):
        detectors.fit_posthoc(plugin("odin"), bank, torch.device("cpu"))


def test_it_is_not_exported(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OODBENCH_RESULTS", str(ran.path.parent / "results"))
    cell = ran.rows[ran.rows["posthoc"].str.startswith("odin")]["cell"].iloc[0]
    done = call("export", ran.path, cell, "--to", tmp_path / "out")
    assert done.exit_code == 2
    assert "a folder scores features, and odin" in " ".join(done.stderr.split())

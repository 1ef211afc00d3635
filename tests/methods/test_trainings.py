"""Trainings with queues, synthesised outliers and a slow copy, against the slowest loop of their papers."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from oodbench.api import Batch, Features
from oodbench.study.registry import Registry
from oodbench.training.train import whole_loss

Y = [2, 0, 1, 1, 2, 0, 2]  # of items, in three classes


def training(name: str, **params: object) -> Any:
    return Registry().load("training", name)(**params)


def code(name: str) -> Any:
    """Return the module of a training."""
    return __import__(Registry().load("training", name).__module__, fromlist=["x"])


def batch(h: Tensor, out: dict[str, Tensor], y: list[int] | None = None, **given: Any) -> Batch:
    labels = None if y is None else torch.tensor(y)
    host, shift = None if labels is None else labels.numpy(), torch.zeros(h.shape[1], dtype=torch.int64)
    first = {
        "y": labels,
        "index": torch.arange(h.shape[1]),
        "shift": shift,
        "outlier": None,
        "epoch": 0,
        "y_host": host,
    }
    return Batch(**(first | {"h": h, "out": out} | given))


def unit(x: list[float]) -> list[float]:
    length = math.sqrt(sum(each * each for each in x))
    return [each / length for each in x]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", ["vos", "npos"])
def test_each_class_has_a_queue(name: str) -> None:
    """Of items one by one, the oldest of a class going first; a class may bring more than its queue holds."""
    queue, rows = torch.randn(3, 2, 4), torch.randn(7, 4)
    wanted = [deque(each.tolist(), maxlen=2) for each in queue]
    for row, c in zip(rows, Y, strict=True):
        wanted[c].append(row.tolist())
    assert code(name).pushed(queue, rows, torch.tensor(Y)).tolist() == [list(each) for each in wanted]
    state = training(name, size=3, **{"k": 2, "boundary": 2} if name == "npos" else {}).init(
        Features(rows, {"z": rows}), torch.tensor(Y), 0
    )
    own = [[row.tolist() for row, each in zip(rows, Y, strict=True) if each == c] for c in range(3)]
    assert state["queue"].tolist() == [(each + each)[:3] for each in own]  # as often as it takes


# ---- VOS -------------------------------------------------------------------------------------------------


def test_the_outliers_of_vos_are_its_least_likely_samples() -> None:
    queue = torch.randn(3, 6, 4) * torch.tensor([1.0, 2.0, 0.5, 1.0]) + torch.randn(3, 1, 4)
    torch.manual_seed(5)
    found = code("vos").outliers(queue, 50, 2)
    covariance = torch.zeros(4, 4)
    means = [sum(rows.unbind(0)) / 6 for rows in queue]
    for rows, mean in zip(queue, means, strict=True):
        for row in rows:
            covariance += torch.outer(row - mean, row - mean) / 18
    covariance += 1e-4 * torch.eye(4)
    rng, root = torch.Generator().manual_seed(5), torch.linalg.cholesky(covariance)
    wanted = []
    for mean in means:
        samples = [mean + root @ z for z in torch.randn(50, 4, generator=rng)]
        gauss = MultivariateNormal(mean, covariance)
        wanted += sorted(samples, key=lambda x: gauss.log_prob(x).item())[:2]
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-4)


def test_vos() -> None:
    """Energies with a weight of each class, of which a negative one counts as none, and their logistic loss."""
    head, y = nn.Linear(4, 3), Y
    h, queue = torch.randn(1, 7, 4), torch.randn(3, 5, 4)
    vos = training("vos", size=5, drawn=20, kept=2, weight=0.3, start=1)
    learned = vos.learned(4, 3)
    with torch.no_grad():
        learned.weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
    given = {"heads": {"logits": head}, "learned": learned}
    logits = head(h)
    torch.manual_seed(7)
    terms, state = vos.loss(batch(h, {"logits": logits}, y, epoch=1, **given), {"queue": queue})
    pushed = code("vos").pushed(queue, h[0], torch.tensor(y))
    assert torch.equal(state["queue"], pushed)
    torch.manual_seed(7)
    known, strange = logits[0].tolist(), head(code("vos").outliers(pushed, 20, 2)).tolist()
    (a, b), (c, d) = learned.phi.weight[:, 0].tolist(), learned.phi.bias.tolist()
    loss = 0.0
    for f, target in [(f, 1) for f in known] + [(f, 0) for f in strange]:
        energy = -math.log(sum(w * math.exp(each) for w, each in zip([0.5, 0.0, 2.0], f, strict=True)))
        told = [-a * energy + c, -b * energy + d]
        loss += (math.log(sum(map(math.exp, told))) - told[target]) / (len(known) + len(strange))
    assert terms["uncertainty"].item() == pytest.approx(0.3 * loss, rel=1e-4)
    closed = sum(math.log(sum(map(math.exp, f))) - f[k] for f, k in zip(known, y, strict=True)) / 7
    assert terms["cross_entropy"].item() == pytest.approx(closed, rel=1e-5)
    before, _ = vos.loss(batch(h, {"logits": logits}, y, epoch=0, **given), {"queue": queue})
    assert set(before) == {"cross_entropy"}
    whole_loss(terms).backward()
    assert learned.weight.grad is not None
    assert learned.weight.grad[2] != 0


def test_an_energy_is_finite_without_a_positive_weight() -> None:
    learned = training("vos").learned(4, 3)
    with torch.no_grad():
        learned.weight.fill_(-1)
    loss = learned(torch.randn(2, 3), torch.randn(2, 3))
    loss.backward()
    assert loss.isfinite()
    assert all(each.grad.isfinite().all() for each in learned.parameters())


# ---- NPOS ------------------------------------------------------------------------------------------------


def test_neighbours_are_scikit_learns() -> None:
    x, f = torch.randn(40, 6), torch.randn(60, 6)
    known = NearestNeighbors(n_neighbors=4).fit([unit(row) for row in f.tolist()])
    wanted, _ = known.kneighbors([unit(row) for row in x.tolist()])
    np.testing.assert_allclose(code("npos").neighbour_distance(x, f, 4).numpy(), wanted[:, -1], rtol=1e-4)


def test_the_outliers_of_npos_lie_around_the_boundary() -> None:
    queue = torch.randn(2, 12, 4, dtype=torch.float64) + 1
    npos = training("npos", size=12, k=3, boundary=5, picked=2, drawn=8, kept=3, sigma=0.4)

    def distance(x: Tensor, own: Tensor) -> float:
        """Return that to the third nearest, of an item of the queue itself being one."""
        return sorted(math.dist(unit(x.tolist()), unit(each.tolist())) for each in own)[2]

    rng = torch.Generator().manual_seed(9)
    noise = 0.4 * torch.randn(8, 4, generator=rng, dtype=torch.float64)
    wanted = []
    for own in queue:
        edge = sorted(own, key=lambda x: -distance(x, own))[:5]
        for i in torch.randperm(5, generator=rng)[:2].tolist():
            candidates = [edge[i] + each for each in noise]
            wanted += sorted(candidates, key=lambda x: -distance(x, own))[:3]
    torch.manual_seed(9)
    torch.testing.assert_close(npos.synthesised(queue), torch.stack(wanted))


def slow_closed(z: Tensor, y: list[int], mu: list[Tensor], npos: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    """CIDER's two terms as OpenOOD's npos_trainer.py has them: prototypes are moved item by item."""
    items = [(z[v, i] / z[v, i].norm(), y[i]) for v in range(z.shape[0]) for i in range(z.shape[1])]
    for x, c in items:
        moving = npos.momentum * mu[c] + (1 - npos.momentum) * x
        mu[c] = moving / moving.norm()
    compact = torch.zeros(())
    for x, c in items:
        scores = torch.stack([x @ each.detach() / npos.temperature for each in mu])
        compact = compact - (scores[c] - scores.exp().sum().log()) / len(items)
    apart = torch.zeros(())
    for c, own in enumerate(mu):
        total = sum((own @ each / npos.temperature).exp() for d, each in enumerate(mu) if d != c)
        apart = apart + (total / (len(mu) - 1)).log() / len(mu)
    return npos.temperature / npos.base_temperature * compact, npos.dispersion * apart, mu


def test_npos() -> None:
    phi = nn.Linear(4, 1)
    h, z, start = torch.randn(2, 7, 4), torch.randn(2, 7, 5, requires_grad=True), torch.randn(3, 5)
    queue, prototype = torch.randn(3, 6, 4), start / start.norm(dim=1, keepdim=True)
    npos = training("npos", size=6, k=2, boundary=4, picked=2, drawn=5, kept=2, weight=0.3, start=1, momentum=0.6)
    b = batch(h, {"z": z, "inside": phi(h)}, Y, heads={"inside": phi}, epoch=1)
    torch.manual_seed(3)
    terms, state = npos.loss(b, {"queue": queue, "prototype": prototype})
    compact, apart, mu = slow_closed(z, Y, list(prototype), npos)
    assert terms["compactness"].item() == pytest.approx(compact.item(), rel=1e-4)
    assert terms["dispersion"].item() == pytest.approx(apart.item(), rel=1e-4)
    torch.testing.assert_close(state["prototype"], torch.stack(mu).detach())
    assert not state["prototype"].requires_grad
    ours, wanted = (
        torch.autograd.grad(each, z)[0] for each in (terms["compactness"] + terms["dispersion"], compact + apart)
    )
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)
    torch.manual_seed(3)
    outside = phi(npos.synthesised(state["queue"])).flatten().tolist()
    inside = phi(h).flatten().tolist()
    loss = sum(math.log(1 + math.exp(-f)) for f in inside) + sum(math.log(1 + math.exp(f)) for f in outside)
    assert terms["open"].item() == pytest.approx(0.3 * loss / (len(inside) + len(outside)), rel=1e-4)
    assert len(outside) == 3 * 2 * 2
    assert "open" not in npos.loss(batch(h, b.out, Y), {"queue": queue, "prototype": prototype})[0]


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("npos", {"k": 1001}, r"k \(1001\) is more than size \(1000\)"),
        ("npos", {"inside": "mlp-128-2"}, "a head of one output is wanted"),
        ("vos", {"kept": 5, "drawn": 4}, r"kept \(5\) is more than drawn \(4\)"),
    ],
)
def test_what_does_not_go_together_is_refused(name: str, params: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        training(name, **params)


# ---- MoCo, mixup -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
def test_moco(symmetric: bool) -> None:
    """Query by query against its own key and the queue, in which the keys of a batch are only after it."""
    z, slow, queue = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(5, 4)
    moco = training("moco", keys=5, temperature=0.3, symmetric=symmetric)
    loss, state = moco.loss(batch(z, {"z": z}, slow={"z": slow}), {"queue": queue})
    pairs = [(z[0, i], slow[1, i]) for i in range(3)]
    pairs += [(z[1, i], slow[0, i]) for i in range(3)] if symmetric else []
    wanted, keys = 0.0, []
    for query, key in pairs:
        q, k = unit(query.tolist()), unit(key.tolist())
        keys.append(k)
        all_ = [math.exp(dot(q, k) / 0.3), *(math.exp(dot(q, each) / 0.3) for each in queue.tolist())]
        wanted -= math.log(all_[0] / sum(all_)) / len(pairs)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(state["queue"], torch.tensor((keys + queue.tolist())[:5]))


def test_the_queue_of_moco_begins_at_random_by_the_seed() -> None:
    f, moco = Features(torch.zeros(3, 2), {"z": torch.zeros(3, 4)}), training("moco", keys=50)
    first, again, other = (moco.init(f, None, seed)["queue"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(50))


def test_mixup() -> None:
    logits, target = torch.randn(1, 3, 4), torch.rand(3, 4)
    loss, _ = training("mixup").loss(batch(logits, {"logits": logits}, [0, 1, 2], target=target), {})
    wanted = 0.0
    for f, shares in zip(logits[0].tolist(), target.tolist(), strict=True):
        wanted += sum(share * (math.log(sum(map(math.exp, f))) - own) for share, own in zip(shares, f, strict=True)) / 3
    assert loss.item() == pytest.approx(wanted, rel=1e-5)

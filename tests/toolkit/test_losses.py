"""Every loss against the slowest loop that its paper's formula gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from oodbench.api import Batch, Features
from oodbench.study.registry import Registry
from oodbench.toolkit.losses import contrastive, nt_xent


def batch(out: dict[str, Tensor], **given: object) -> Batch:
    first = next(iter(out.values()))
    values: dict[str, object] = {
        "h": first,
        "out": out,
        "y": None,
        "index": torch.arange(first.shape[1]),
        "shift": torch.zeros(first.shape[1], dtype=torch.int64),
        "outlier": None,
        "epoch": 0,
    }
    y = given.get("y")
    values["y_host"] = y.numpy() if isinstance(y, Tensor) else None
    return Batch(**(values | given))  # type: ignore[arg-type]


def training(name: str, **params: object) -> object:
    return Registry().load("training", name)(**params)


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def slow_contrastive(z: Tensor, group: list[int], temperature: float) -> float:
    """Khosla et al. 2020, eq. 2, anchor by anchor, positive by positive; NT-Xent with one item a group."""
    views, items = z.shape[:2]
    rows = [(v, i) for v in range(views) for i in range(items)]
    vectors = {(v, i): z[v, i].tolist() for v, i in rows}
    losses = []
    for anchor in rows:
        others = [row for row in rows if row != anchor]
        positives = [row for row in others if group[row[1]] == group[anchor[1]]]
        if not positives:
            continue
        total = sum(math.exp(cosine(vectors[anchor], vectors[row]) / temperature) for row in others)
        logs = [math.log(math.exp(cosine(vectors[anchor], vectors[p]) / temperature) / total) for p in positives]
        losses.append(-sum(logs) / len(logs))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize(("views", "items"), [(2, 1), (2, 5), (3, 4)])
def test_nt_xent(views: int, items: int, temperature: float) -> None:
    z = torch.randn(views, items, 6)
    assert nt_xent(z, temperature).item() == pytest.approx(
        slow_contrastive(z, list(range(items)), temperature), rel=1e-5
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("group", [[0, 0, 1, 2, 1], [0, 1, 2, 3, 0], [3, 3, 3, 3, 3]])
@pytest.mark.parametrize("views", [1, 2, 3])
def test_contrastive(views: int, group: list[int], temperature: float) -> None:
    z = torch.randn(views, 5, 4)
    expected = slow_contrastive(z, group, temperature)
    assert contrastive(z, torch.tensor(group), temperature).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_nt_xent_by_hand() -> None:
    """Two items, the views of each equal, the items orthogonal: each anchor sees 1 at its partner, 0 at two others."""
    z = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 1.0]]])
    assert nt_xent(z, 0.5).item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + 2)), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize(("name", "group"), [("simclr", [0, 1, 2, 3]), ("supcon", [0, 1, 1, 0])])
def test_the_base_temperature_multiplies_the_loss(name: str, group: list[int], temperature: float) -> None:
    """SupContrast's losses.py: - (temperature / base_temperature) x the mean log-probability of the positives."""
    z = torch.randn(2, 4, 5)
    b = batch({"z": z}, y=torch.tensor(group))
    wanted = slow_contrastive(z, group, temperature)
    plain, scaled = (
        training(name, temperature=temperature),
        training(name, temperature=temperature, base_temperature=0.07),
    )
    assert plain.loss(b, {})[0].item() == pytest.approx(wanted, rel=1e-5)  # type: ignore[attr-defined]
    assert scaled.loss(b, {})[0].item() == pytest.approx(temperature / 0.07 * wanted, rel=1e-5)  # type: ignore[attr-defined]


def test_partner_is_the_other_view_of_the_same_item() -> None:
    """A hand-made batch that is not symmetric: pairing view 1 of an item with view 2 of the next gives another loss."""
    z = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    shifted = torch.stack([z[0], z[1].roll(1, 0)])
    assert abs(nt_xent(z, 0.5) - nt_xent(shifted, 0.5)) > 1e-3


def test_anchors_without_positive_do_not_count() -> None:
    z = torch.randn(1, 3, 4)
    group = torch.tensor([0, 0, 1])
    assert contrastive(z, group, 0.5).item() == pytest.approx(slow_contrastive(z, [0, 0, 1], 0.5), rel=1e-5)
    assert contrastive(z, torch.arange(3), 0.5).item() == 0


def test_zero_vectors_have_a_finite_loss_and_gradient() -> None:
    z = torch.zeros(2, 3, 4, requires_grad=True)
    loss = nt_xent(z, 0.5)
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_simclr() -> None:
    z = torch.randn(2, 6, 5)
    loss, state = training("simclr", temperature=0.3).loss(batch({"z": z}), {})
    assert loss.item() == pytest.approx(slow_contrastive(z, list(range(6)), 0.3), rel=1e-5)
    assert state == {}


def test_supcon() -> None:
    z, y = torch.randn(2, 6, 5), [0, 1, 1, 2, 0, 1]
    loss, _ = training("supcon").loss(batch({"z": z}, y=torch.tensor(y)), {})
    assert loss.item() == pytest.approx(slow_contrastive(z, y, 0.1), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float) -> None:
    logits, y = torch.randn(2, 4, 3), [2, 0, 1, 1]
    loss, _ = training("cross_entropy", label_smoothing=smoothing).loss(
        batch({"logits": logits}, y=torch.tensor(y)), {}
    )
    expected = 0.0
    for v in range(2):
        for i in range(4):
            total = math.log(sum(math.exp(each) for each in logits[v, i].tolist()))
            for c in range(3):
                target = (1 - smoothing) * (c == y[i]) + smoothing / 3
                expected -= target * (logits[v, i, c].item() - total) / 8
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("epoch", "alpha"), [(49, 0.0), (50, 0.7)])
def test_oecl(epoch: int, alpha: float) -> None:
    """Contrastive on ID views alone, plus alpha times the mean L2 norm of raw outlier outputs, after the warm-up."""
    z, outlier = torch.randn(2, 5, 4), torch.randn(2, 3, 4)
    loss, _ = training("oecl", alpha=0.7).loss(batch({"z": z}, outlier={"z": outlier}, epoch=epoch), {})
    norms = [math.sqrt(sum(x * x for x in outlier[v, i].tolist())) for v in range(2) for i in range(3)]
    expected = slow_contrastive(z, list(range(5)), 0.5) + alpha * sum(norms) / 6
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_oecl_declares_what_its_forms_need() -> None:
    external, own = training("oecl"), training("oecl", form="self", id_turns=(0,), outlier_turns=(1, 3))
    assert (external.outliers, external.shifts.outlier) == (True, ())
    assert (own.outliers, own.shifts) == (False, ((0,), (1, 3)))
    with pytest.raises(ValueError, match="share a turn"):
        training("oecl", form="self", id_turns=(0, 2), outlier_turns=(2,))


def slow_ccl(z: Tensor, cluster: list[int], center: Tensor, temperature: float, local: float, global_: float) -> float:
    views, items = z.shape[:2]
    loss = slow_contrastive(z, list(range(items)), temperature) + local * slow_contrastive(z, cluster, temperature)
    for v in range(views):
        for i in range(items):
            scores = [cosine(z[v, i].tolist(), c.tolist()) / temperature for c in center]
            total = math.log(sum(math.exp(each) for each in scores))
            loss += global_ * (total - scores[cluster[i]]) / (views * items)
    return loss


def test_ccl() -> None:
    z, position = torch.randn(2, 5, 4), [7, 2, 0, 5, 3]  # the batch holds these items of a set of eight
    assign = torch.tensor([1, 0, 2, 1, 0, 2, 0, 1])
    center = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    ccl = training("ccl", k=3, local=0.5, global_=2.0, temperature=0.4)
    loss, _ = ccl.loss(batch({"z": z}, index=torch.tensor(position)), {"assign": assign, "center": center})
    clusters = [int(assign[i]) for i in position]
    assert loss.item() == pytest.approx(slow_ccl(z, clusters, center, 0.4, 0.5, 2.0), rel=1e-5)


def test_ccl_is_simclr_before_its_first_clustering() -> None:
    z = torch.randn(2, 5, 4)
    ccl = training("ccl", k=3, warmup=10)
    features = Features(z[0], {"z": z[0]})
    assert ccl.refresh(features, None, 9, 0, {}) == {}
    assert ccl.loss(batch({"z": z}), {})[0].item() == pytest.approx(slow_contrastive(z, list(range(5)), 0.5), rel=1e-5)


@pytest.mark.parametrize("layer", ["projection", "penultimate"])
def test_ccl_clusters(layer: str) -> None:
    """Three far groups are found; a centre is the unit-norm mean of the unit-norm projections of its cluster."""
    group = torch.arange(3).repeat_interleave(5)
    z = torch.eye(3, 4)[group] + 0.05 * torch.randn(15, 4)
    state = training("ccl", k=3, warmup=0, layer=layer).refresh(Features(2 * z, {"z": z}), None, 0, 0, {})
    for k in range(3):
        members = (state["assign"] == k).nonzero()[:, 0]
        assert len(group[members].unique()) == 1
        mean = sum(z[i] / z[i].norm() for i in members.tolist()) / len(members)
        torch.testing.assert_close(state["center"][k], mean / mean.norm())


def slow_cross_entropy(logits: list[float], target: list[float]) -> float:
    """Minus sum_c target_c log softmax_c."""
    total = sum(math.exp(each) for each in logits)
    return -sum(share * math.log(math.exp(each) / total) for each, share in zip(logits, target, strict=True))


def one_hot(c: int, classes: int) -> list[float]:
    return [float(k == c) for k in range(classes)]


def test_outlier_exposure() -> None:
    """Cross-entropy of ID items, plus lambda times the cross-entropy from the uniform distribution of outliers."""
    logits, outlier, y = torch.randn(2, 4, 3), 2 * torch.randn(2, 5, 3), [2, 0, 1, 1]
    expose = training("outlier_exposure", weight=0.3)
    loss, _ = expose.loss(batch({"logits": logits}, y=torch.tensor(y), outlier={"logits": outlier}), {})
    known = [slow_cross_entropy(logits[v, i].tolist(), one_hot(y[i], 3)) for v in range(2) for i in range(4)]
    strange = [slow_cross_entropy(outlier[v, i].tolist(), [1 / 3] * 3) for v in range(2) for i in range(5)]
    assert loss.item() == pytest.approx(sum(known) / 8 + 0.3 * sum(strange) / 10, rel=1e-5)
    assert training("outlier_exposure").weight == 0.5
    assert expose.outliers


def test_outlier_exposure_is_least_where_outliers_are_uniform() -> None:
    logits, y = torch.randn(1, 4, 3), torch.tensor([2, 0, 1, 1])
    losses = [
        training("outlier_exposure").loss(batch({"logits": logits}, y=y, outlier={"logits": outlier}), {})[0].item()
        for outlier in (torch.full((1, 2, 3), 7.0), torch.tensor([[[7.0, 7.0, 7.5], [7.0, 7.0, 7.0]]]))
    ]
    plain = training("cross_entropy").loss(batch({"logits": logits}, y=y), {})[0].item()
    assert losses[0] == pytest.approx(plain + 0.5 * math.log(3), rel=1e-5)
    assert losses[1] > losses[0] + 1e-3


@pytest.mark.parametrize("temperature", [0.04, 1.0])
def test_logitnorm(temperature: float) -> None:
    logits, y = 5 * torch.randn(2, 4, 3), [2, 0, 1, 1]
    loss, _ = training("logitnorm", temperature=temperature).loss(batch({"logits": logits}, y=torch.tensor(y)), {})
    expected = 0.0
    for v in range(2):
        for i in range(4):
            f = logits[v, i].tolist()
            length = math.sqrt(sum(each * each for each in f))
            expected += slow_cross_entropy([each / length / temperature for each in f], one_hot(y[i], 3)) / 8
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert training("logitnorm").temperature == 0.04


def test_logitnorm_does_not_see_the_length_and_takes_zero_logits() -> None:
    logits, y = torch.randn(1, 4, 3), torch.tensor([2, 0, 1, 1])
    loss, longer = (training("logitnorm").loss(batch({"logits": a * logits}, y=y), {})[0].item() for a in (1.0, 9.0))
    assert longer == pytest.approx(loss, rel=1e-5)
    nothing = torch.zeros(1, 4, 3, requires_grad=True)
    found = training("logitnorm").loss(batch({"logits": nothing}, y=y), {})[0]
    found.backward()
    assert found.item() == pytest.approx(math.log(3), rel=1e-6)
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


def slow_csi(z: Tensor, told: Tensor, shift: list[int], temperature: float) -> float:
    """Tack et al. 2020: contrastive over all views of all turned items, plus the cross-entropy of the turn."""
    loss, count = slow_contrastive(z, list(range(z.shape[1])), temperature), z.shape[0] * z.shape[1]
    for v in range(z.shape[0]):
        for i in range(z.shape[1]):
            loss += slow_cross_entropy(told[v, i].tolist(), one_hot(shift[i], 4)) / count
    return loss


SHIFT = [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]  # three images, four turns


@pytest.mark.parametrize(("given", "temperature"), [(None, 0.5), (0.2, 0.2)])
def test_csi(given: float | None, temperature: float) -> None:
    """A turned copy is an instance of its own: the only positive of a view is the other view of the same turn."""
    z, told = torch.randn(2, 12, 5), torch.randn(2, 12, 4)
    b = batch({"z": z, "shift": told}, shift=torch.tensor(SHIFT), index=torch.arange(3).repeat(4))
    loss, _ = training("csi", temperature=given).loss(b, {})
    assert loss.item() == pytest.approx(slow_csi(z, told, SHIFT, temperature), rel=1e-5)


@pytest.mark.parametrize(("given", "temperature"), [(None, 0.07), (0.2, 0.2)])
def test_csi_with_labels(given: float | None, temperature: float) -> None:
    """The authors' sup_simclr_CSI.py: positives share class and turn, and there is no loss of the turn."""
    z, y = torch.randn(2, 12, 5), [1, 0, 1] * 4
    b = batch({"z": z}, shift=torch.tensor(SHIFT), y=torch.tensor(y), index=torch.arange(3).repeat(4))
    loss, _ = training("csi", labels=True, temperature=given).loss(b, {})
    group = [(2 * s) + c for s, c in zip(SHIFT, y, strict=True)]  # of (class, turn) pairs, no two alike
    assert loss.item() == pytest.approx(slow_contrastive(z, group, temperature), rel=1e-5)


def test_csi_declares_what_its_forms_need() -> None:
    plain, labelled = training("csi"), training("csi", labels=True)
    assert (plain.labels, labelled.labels, plain.views) == (False, True, 2)
    assert plain.shifts == labelled.shifts == ((0, 1, 2, 3), ())
    assert plain.heads == {"z": "mlp-128", "shift": "linear-4"}
    assert labelled.heads == {"z": "mlp-128"}


def slow_cider(prototype: Tensor, z: Tensor, y: list[int], momentum: float, t: float) -> tuple[Tensor, Tensor, Tensor]:
    """Ming et al. 2023 and the authors' code, item by item: the two terms, and the prototypes after the batch."""
    mu = list(prototype.unbind(0))
    items = [(z[v, i] / z[v, i].norm(), y[i]) for v in range(z.shape[0]) for i in range(z.shape[1])]
    for each, c in items:
        toward = momentum * mu[c] + (1 - momentum) * each
        mu[c] = toward / toward.norm()
    apart = torch.zeros(())
    for c in range(len(mu)):
        others = [torch.exp(mu[c] @ mu[d] / t) for d in range(len(mu)) if d != c]
        apart = apart + torch.log(sum(others) / len(others)) / len(mu)  # type: ignore[arg-type]
    constant = [each.detach() for each in mu]
    compact = torch.zeros(())
    for each, c in items:
        every = [torch.exp(each @ other / t) for other in constant]
        compact = compact - torch.log(every[c] / sum(every)) / len(items)
    return compact, apart, torch.stack(constant)


@pytest.mark.parametrize("y", [[0, 1, 1, 2, 0, 1], [2, 2, 2, 2, 2, 2], [3, 0, 3, 1, 2, 0]])
@pytest.mark.parametrize("momentum", [0.95, 0.5])
def test_cider(y: list[int], momentum: float) -> None:
    """Loss, gradient and prototypes; a class without items keeps its prototype."""
    z = torch.randn(2, 6, 5, requires_grad=True)
    prototype = torch.nn.functional.normalize(torch.randn(4, 5), dim=1)
    compact, apart, after = slow_cider(prototype, z, y, momentum, 0.2)
    expected = 0.5 * 0.2 / 0.07 * compact + apart
    (gradient,) = torch.autograd.grad(expected, z)
    cider = training("cider", momentum=momentum, weight=0.5, temperature=0.2)
    loss, state = cider.loss(batch({"z": z}, y=torch.tensor(y)), {"prototype": prototype})
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(state["prototype"], after)
    assert not state["prototype"].requires_grad


def test_cider_without_the_code_s_factor() -> None:
    z, y = torch.randn(2, 4, 3), torch.tensor([0, 1, 1, 0])
    state = {"prototype": torch.nn.functional.normalize(torch.randn(2, 3), dim=1)}
    compact, apart, _ = slow_cider(state["prototype"], z, y.tolist(), 0.95, 0.1)
    loss, _ = training("cider", base_temperature=0.1).loss(batch({"z": z}, y=y), state)
    assert loss.item() == pytest.approx((2 * compact + apart).item(), rel=1e-5)


def test_cider_begins_at_the_class_means_of_unit_outputs() -> None:
    z, y = 3 * torch.randn(9, 4), [0, 2, 1, 1, 0, 2, 2, 0, 1]
    found = training("cider").init(Features(z, {"z": z}), torch.tensor(y), 0)["prototype"]
    for c in range(3):
        members = [z[i] / z[i].norm() for i in range(9) if y[i] == c]
        mean = sum(members) / len(members)
        torch.testing.assert_close(found[c], mean / mean.norm())

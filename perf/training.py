"""How fast training and embedding are: our time beside a stock pipeline's, and beside the bare passes of the network.

    python perf/training.py                             everything at full size: about a quarter of an hour on two cores
    python perf/training.py --size 0.1 --only augment   a tenth of the images, the rows of the table named augment...

Synthetic 32 x 32 x 3 images, a ResNet-18 of width 16, SimCLR's augmentations (crop 0.2 to 1, flip, jitter 0.4, 0.4,
0.4, 0.1, grey). Each side runs in its own process, in turns. Times are medians; the share is the time that the
products of the network need at the rate measured in the same run, by our time: float32 on a CPU, bf16 on a CUDA
device. Ends with 1 where a row falls short. Ratios are the result: seconds are the machine's. Needs torchvision.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from measure import Machine, Prepare, Scale, Work, in_turns, machine
from scoring import Found, Row, plugin

SEED = 0
SIZE = 32
IMAGES = 2048
BATCH = 256
INTERVAL = 300  # seconds between two checkpoints, by default
CHECKPOINT_WIDTH = 64  # of the network whose checkpoint is timed: ResNet-18 as published


# ---- what both sides work on ----------------------------------------------------------------------


def device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16() -> bool:
    from oodbench.training import encoders

    return encoders.has_bf16(device())


def precision() -> Any:
    return "bf16" if has_bf16() else "float32"


def images(scale: Scale) -> Any:
    """Return uint8 images (N, 3, 32, 32), channels last in memory: blocks of colour under noise."""
    import torch
    import torch.nn.functional as F

    rng = torch.Generator().manual_seed(SEED)
    blocks = F.interpolate(torch.rand(scale.rows(IMAGES), 3, 4, 4, generator=rng), size=SIZE, mode="bilinear")
    x = (blocks + 0.1 * torch.randn(blocks.shape, generator=rng)).clamp(0, 1) * 255
    return x.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def classes(count: int) -> Any:
    import torch

    return torch.arange(count) % 10


def synced(work: Callable[[], Any]) -> Work:
    """Return the work with its wait for a CUDA device; what it computed is not compared, views being random."""
    import torch

    def run() -> None:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


# ---- augmentation -----------------------------------------------------------------------------------


def augment_ours(scale: Scale) -> Work:
    from oodbench.study.settings import Augment
    from oodbench.toolkit.seeds import generator
    from oodbench.training import augment

    x = images(scale).to(device())
    return synced(lambda: augment.views(x, Augment(), 2, generator(SEED, "views")))


def pil_transform() -> Any:
    import torchvision.transforms as T

    return T.Compose(
        [
            T.RandomResizedCrop(SIZE, scale=(0.2, 1.0)),
            T.RandomHorizontalFlip(),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            T.RandomGrayscale(0.2),
            T.ToTensor(),
        ]
    )


class TwoViews:
    """A stock data set: arrays that become PIL images, of which two views are made."""

    def __init__(self, x: Any) -> None:
        self._x = x.permute(0, 2, 3, 1).numpy()
        self._transform = pil_transform()

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, i: int) -> tuple[Any, Any, int]:
        from PIL import Image

        image = Image.fromarray(self._x[i])
        return self._transform(image), self._transform(image), i % 10


def augment_pil(scale: Scale) -> Work:
    import torch

    data = TwoViews(images(scale))

    def work() -> None:
        seen = [data[i] for i in range(len(data))]
        torch.stack([first for first, _, _ in seen] + [second for _, second, _ in seen])

    return work


def loader(scale: Scale, batch: int) -> Any:
    from torch.utils.data import DataLoader

    data = TwoViews(images(scale))
    return DataLoader(data, min(batch, len(data)), shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)  # type: ignore[arg-type]


def augment_loader(scale: Scale) -> Work:
    batches = loader(scale, BATCH)
    return lambda: [None for _ in batches]


# ---- a training step --------------------------------------------------------------------------------


class Ready(NamedTuple):
    """A SupCon training of one epoch before its first step."""

    training: Any
    recipe: Any
    data: Any
    model: Any


def ready(scale: Scale, width: int | None = None) -> Ready:
    from oodbench.study.settings import Encoder, ImageFormat, Recipe
    from oodbench.training import batches as feed
    from oodbench.training import networks

    x = images(scale)
    data = feed.TrainingData(x.to(device()), classes(len(x)).to(device()), 10)
    training, recipe = plugin("training", "supcon"), Recipe(epochs=1, batch=min(BATCH, len(x)), warmup=0)
    form = Encoder(name="resnet18", params={"width": width or scale.dim})
    return Ready(training, recipe, data, networks.untrained(training, form, recipe, ImageFormat(size=SIZE), data, SEED))


def train_ours(scale: Scale) -> Work:
    from oodbench.training import train

    training, recipe, data, model = ready(scale)
    return synced(lambda: train.train(model, training, recipe, precision(), data, SEED))


def feed_ours(scale: Scale) -> Work:
    from oodbench.training import batches as feed

    training, recipe, data, _ = ready(scale)
    return synced(lambda: [None for _ in feed.batches(training, recipe, data, SEED, 0)])


def train_stock(scale: Scale) -> Work:
    """The same network and loss in a stock loop: PIL images, a DataLoader, float32, channels first."""
    import torch

    from oodbench.toolkit.losses import contrastive

    model = ready(scale).model.to(memory_format=torch.contiguous_format)
    mean, std, network = model.mean, model.std, model.network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    batches = loader(scale, BATCH)

    def work() -> None:
        for first, second, y in batches:
            x = (torch.cat([first, second]).to(device()) - mean) / std
            z = network(x)[1]["z"].unflatten(0, (2, -1))
            loss = contrastive(z, y.to(device()), 0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return synced(work)


def train_bare(scale: Scale) -> Work:
    """Forward, backward and update on tensors that are there, in the best precision and layout; no loss to speak of."""
    import torch

    from oodbench.training.train import keep_freed_memory

    keep_freed_memory()
    _, recipe, data, model = ready(scale)
    network = model.network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    x = torch.randn(2 * recipe.batch, 3, SIZE, SIZE, device=device()).contiguous(memory_format=model.layout)

    def work() -> None:
        for _ in range(len(data.x) // recipe.batch):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=precision() == "bf16"):
                z = network(x)[1]["z"]
            optimizer.zero_grad(set_to_none=True)
            z.float().square().mean().backward()
            optimizer.step()

    return synced(work)


def flop(scale: Scale, backward: bool) -> float:
    """Return the FLOP of an image's passes through the network."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = ready(Scale(0.01, scale.dim)).model.network.to("cpu").train(backward)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        z = network(torch.randn(2, 3, SIZE, SIZE))[1]["z"]
        if backward:
            z.sum().backward()
    return counter.get_total_flops() / 2


def views(scale: Scale) -> int:
    """Return how many views a timed epoch has."""
    batch = min(BATCH, scale.rows(IMAGES))
    return 2 * (scale.rows(IMAGES) // batch) * batch


# ---- embedding and checkpoints ------------------------------------------------------------------------


def embed_ours(scale: Scale) -> Work:
    from oodbench.study.settings import PLAIN
    from oodbench.training import embed

    _, recipe, data, model = ready(scale)
    return synced(lambda: embed.embed(model, data.x, PLAIN, recipe, SEED))


def embed_bare(scale: Scale) -> Work:
    import torch

    from oodbench.training import embed

    _, _, data, model = ready(scale)
    network = model.network.eval()
    x = torch.randn(data.x.shape, device=device()).contiguous(memory_format=model.layout)

    @torch.no_grad()
    def work() -> None:
        for rows in x.split(embed.EMBED_BATCH):
            network(rows)

    return synced(work)


def checkpoint_ours(scale: Scale) -> Work:
    """One checkpoint of a ResNet-18 of full width, on its way to the disk."""
    from oodbench.store.artifacts import Store
    from oodbench.training import train
    from oodbench.training.checkpoints import Checkpoints

    folder = tempfile.TemporaryDirectory()
    training, recipe, data, model = ready(Scale(0.01), CHECKPOINT_WIDTH)
    kept = []
    watch = train.EachEpoch(lambda epoch, loss, progress: kept.append(progress))
    train.train(model, training, recipe, "float32", data, SEED, watch)
    store = Store(Path(folder.name), lambda message: None)

    def work() -> None:
        assert folder  # lives as long as the work
        Checkpoints(store, "timed", 0.0).offer(1, kept[0])

    return work


# ---- rows ---------------------------------------------------------------------------------------------


def table() -> Iterator[Row]:
    two = "two SimCLR views of 2,048 images, exact jitter"
    yield Row("augment-pil", two, "torchvision's PIL pipeline, in process", 6.0, augment_ours, augment_pil)
    yield Row("augment-loader", two, "the same in a DataLoader, two workers", 4.0, augment_ours, augment_loader)
    step, bar = "SupCon steps, ResNet-18, batches of 256, two views", 3.0 if has_bf16() else 2.0
    trained: Callable[[Scale], float] = lambda s: views(s) * flop(s, True)  # noqa: E731
    yield Row("step-stock", step, "a stock loop", bar, train_ours, train_stock, flop=trained)
    yield Row("step-bare", step, "bare forward, backward, update", 0.85, train_ours, train_bare, flop=trained)
    yield Row("step-share", "augmentation in these steps", "the steps", 0.08, feed_ours, train_ours, kind="slower")
    embedded: Callable[[Scale], float] = lambda s: s.rows(IMAGES) * flop(s, False)  # noqa: E731
    yield Row("embed", "embedding 2,048 images", "bare forward", 0.9, embed_ours, embed_bare, flop=embedded)
    yield Row(
        "checkpoint", "a checkpoint, ResNet-18", "the 5 min between two", 0.02, checkpoint_ours, None, kind="slower"
    )


def measured(row: Row, scale: Scale, rounds: int, limit: Machine) -> Found:
    sides: list[Prepare] = [row.ours] if row.theirs is None else [row.ours, row.theirs]
    seconds, _ = in_turns(sides, scale, rounds, least=3)
    floor = limit.seconds(row.flop(scale), 0.0)
    return Found(row, seconds[0], INTERVAL if row.theirs is None else seconds[1], floor / seconds[0])


def images_per_second(found: Found, scale: Scale) -> float:
    """Return how many images pass the network, or are augmented, in a second; 0 of a checkpoint."""
    if found.row.key == "checkpoint":
        return 0.0
    return (scale.rows(IMAGES) if found.row.key == "embed" else views(scale)) / found.ours


def limits(rounds: int) -> Machine:
    """Return the rate of matrix products: float32 on the CPU, bf16 on a CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return machine(rounds)
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    a @ a
    start.record()
    for _ in range(10):
        a @ a
    end.record()
    torch.cuda.synchronize()
    return Machine(10 * 2 * 8192**3 / (start.elapsed_time(end) / 1000), float("inf"))


def environment(limit: Machine) -> str:
    import torch
    import torchvision

    what = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    kind = "bf16" if torch.cuda.is_available() else "float32"
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    return f"{what}, {limit.product / 1e9:.0f} GFLOP/s {kind}; trains in {precision()}; {versions}"


def main() -> int:
    rows = list(table())
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=float, default=1.0, help="share of the images (default 1)")
    parser.add_argument("--width", type=int, default=16, help="width of the network (default 16)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds after the first; 3 in all for slow work")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="rows of these keys, or whose keys go on with a dash")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    given = parser.parse_args()
    chosen = [row for row in rows if any(f"{row.key}-".startswith(f"{key}-") for key in given.only or [row.key])]
    if not chosen:
        parser.error(f"--only: keys are {', '.join(row.key for row in rows)}")
    scale, limit = Scale(given.size, given.width), limits(given.rounds)
    if not given.json:
        print(environment(limit), flush=True)
        print(
            f"{'work':52} {'against':40} {'ours':>8} {'theirs':>8} {'ratio':>7} {'bar':>9} {'share':>6} {'images/s':>9}"
        )
    holds = True
    for row in chosen:
        found = measured(row, scale, given.rounds, limit)
        holds &= found.holds
        rate = images_per_second(found, scale)
        if given.json:
            print(json.dumps(found.json() | {"images_per_s": rate, "precision": precision()}), flush=True)
            continue
        share = f"{100 * found.share:.0f} %" if found.share else "–"
        numbers = f"{found.ours:8.3f} {found.theirs:8.3f} {found.ratio:7.3f} {found.bar:>9} {share:>6} {rate:9.0f}"
        print(f"{row.work:52} {row.against:40} {numbers}{'' if found.holds else '  falls short'}", flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())

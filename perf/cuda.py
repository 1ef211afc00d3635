"""What oodbench does on a CUDA device, against its bars: one command, one table.

    python perf/cuda.py                               all parts, about nine minutes on an H100
    python perf/cuda.py --parts train score           some of them
    python perf/cuda.py --device cpu --size tiny      tries the script itself; bars of speed are not held then

Parts: `tests`, those that need CUDA; `exact`, trainings made twice, after a stop, with and without a graph; `study`,
the default study on the device, beside its published rows and its features scored on the CPU; `train`, steps beside
bare passes and a stock loop; `plan`, what it says of a study beside what the study then takes; `score`, clusterings and
distances of 50,000 features of 512 on both devices. Each is a process of its own with a limit; what one breaks the
others keep. Ends with 1 where a bar does not hold. `--to FOLDER`
keeps findings.json, table.txt and rows.csv.gz. Needs torchvision and, for `tests`, the extra `dev`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"machine": 60, "tests": 180, "exact": 200, "study": 200, "train": 180, "plan": 100, "score": 120}  # seconds
TOGETHER = "tests", "exact", "study"  # side by side: they do not look at the clock
GIVEN: argparse.Namespace
START = time.perf_counter()
Work = Callable[[], Any]


# ---- findings -------------------------------------------------------------------------------------


def say(name: str, value: Any, holds: bool | None = None, note: str = "") -> None:
    """Keep a finding; `holds` is None where there is no bar."""
    line = {"part": GIVEN.part, "name": name, "value": str(value), "holds": holds, "note": note}
    with (Path(GIVEN.to) / "findings.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    print(f"[{time.perf_counter() - START:5.0f} s] {GIVEN.part}: {name}: {value} {note}", flush=True)


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Let one step fail without the rest: its failure is a finding."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is a finding
        traceback.print_exc()
        say(name, "failed", False, f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}")
    if on_cuda():
        import torch

        torch.cuda.empty_cache()


def on_cuda() -> bool:
    return str(GIVEN.device).startswith("cuda")


def tiny() -> bool:
    return bool(GIVEN.size == "tiny")


def bar(holds: bool) -> bool | None:
    """Return whether a bar of speed holds; None where it is not held."""
    return holds if on_cuda() and not tiny() else None


def sync() -> None:
    if on_cuda():
        import torch

        torch.cuda.synchronize()


def seconds(work: Work, rounds: int = 3, warm: int = 1) -> float:
    """Return the median seconds of work, the device waited for."""
    found = []
    for turn in range(warm + rounds):
        sync()
        start = time.perf_counter()
        work()
        sync()
        if turn >= warm:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def left() -> float:
    return float(GIVEN.limit) - (time.perf_counter() - START)


# ---- machine --------------------------------------------------------------------------------------


def machine() -> None:
    """Card, driver, versions, and the rates that bound the rest."""
    import torch

    from oodbench.store import provenance

    installed = provenance.libraries()
    say("versions", ", ".join(f"{name} {installed[name]}" for name in installed))
    say(
        "machine",
        ", ".join(provenance.machine(str(GIVEN.device)).values()),
        note=f"{len(os.sched_getaffinity(0))} cores",
    )
    one = torch.ones(8, device=GIVEN.device)
    launch = seconds(lambda: [one.add(1) for _ in range(2000)]) / 2000
    say("host time of an eager operation, microseconds", round(launch * 1e6, 2))
    if not on_cuda():
        return
    card = torch.cuda.get_device_properties(GIVEN.device)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    )
    say("card", f"{card.name}, {card.multi_processor_count} multiprocessors, {card.total_memory / 2**30:.1f} GiB")
    say("driver, CUDA, cuDNN", f"{driver.stdout.split()[:1]}, {torch.version.cuda}, {torch.backends.cudnn.version()}")
    for dtype, n in ((torch.bfloat16, 8192), (torch.float32, 8192), (torch.float64, 4096)):
        x = torch.randn(n, n, device=GIVEN.device).to(dtype)
        flops = 2 * n**3 / seconds(lambda x=x: x @ x, 5, 2)  # type: ignore[misc]
        say(f"matrix product, {dtype}, TFLOP/s", round(flops / 1e12, 1))


# ---- tests ----------------------------------------------------------------------------------------


def tests() -> None:
    """The tests that need CUDA, as `make test` runs them on such a machine."""
    with step("tests that need CUDA"):
        words = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-n", str(max(1, min(6, cores() // 2)))]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=left(), check=False)
        print(done.stdout, done.stderr)
        last = done.stdout.strip().splitlines()[-1:]
        say("tests that need CUDA", *last, bar(done.returncode == 0 and " passed" in last[0]))


def cores() -> int:
    return len(os.sched_getaffinity(0))


# ---- trainings ------------------------------------------------------------------------------------


class Case:
    """A training, ready for `train.train`: images of blocks of colour under noise, on the device."""

    def __init__(
        self, training: str, params: dict[str, Any] | None = None, width: int = 64, batch: int = 512, steps: int = 20,
        precision: str = "bf16", stem: str = "cifar", **recipe: Any,
    ) -> None:  # fmt: skip
        import torch
        import torch.nn.functional as F

        from oodbench.study.grid import resolved
        from oodbench.study.registry import Registry
        from oodbench.study.settings import Encoder, ImageFormat, Recipe
        from oodbench.training.batches import TrainingData

        if tiny():
            width, batch, steps = 8, 16, 2
        self.steps, self.batch, self.precision = steps, batch, precision
        rng = torch.Generator().manual_seed(1)
        y = torch.arange(batch * steps) % 10
        kinds = F.interpolate(torch.rand(10, 3, 4, 4, generator=rng), size=32, mode="bilinear")
        x = (kinds[y] + 0.2 * torch.randn(len(y), 3, 32, 32, generator=rng)).clamp(0, 1).mul(255).to(torch.uint8)
        x = x.contiguous(memory_format=torch.channels_last).to(GIVEN.device)
        self.training = resolved(Registry().load("training", training)(**(params or {})), 10)
        self.data = TrainingData(x, y.to(GIVEN.device), 10, x if self.training.outliers else None)
        self.recipe = Recipe(**{"epochs": 1, "batch": batch, "warmup": 0, "lr": 0.05} | recipe)
        self.form = Encoder(name="resnet18", params={"width": width, "stem": stem})
        self.image = ImageFormat(size=32)

    @property
    def views(self) -> int:
        """Images that pass the network in a step."""
        shifts = self.training.shifts
        return int(self.training.views * self.batch * (len(shifts.id) + len(shifts.outlier)))

    def model(self, seed: int = 0) -> Any:
        from oodbench.training import networks

        return networks.untrained(self.training, self.form, self.recipe, self.image, self.data, seed)

    def train(
        self, model: Any, graph: bool = True, hear: Callable[..., object] | None = None, **more: Any
    ) -> list[float]:
        from oodbench.training import graphs, train

        data, warned = self.data, []
        if graph and graphs.wanted(self.recipe, self.form, self.data.y.device):
            data = data._replace(world=graphs.Card(warned.append))
        more |= {"watch": train.EachEpoch(hear)} if hear else {}
        found = train.train(model, self.training, self.recipe, self.precision, data, 0, **more)  # type: ignore[arg-type]
        if warned:
            raise RuntimeError(warned[0])
        return found


def off(one: Any, other: Any) -> str:
    """Return in words how far two models' weights are apart, in units of the largest of their tensor."""
    import torch

    pairs = list(zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    if all(torch.equal(a, b) for a, b in pairs):
        return "bit-equal"
    far = max(float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12)) for a, b in pairs)
    return f"differs by {far:.1e}"


EXACT: dict[str, dict[str, Any]] = {
    "supcon, bf16": {"training": "supcon"},
    "supcon, float32": {"training": "supcon", "precision": "float32", "batch": 256},
    "simclr with every view, bf16": {"training": "simclr", "augment": {"blur": 0.5, "erase": 0.3, "rotate": 10.0}},
    "cross_entropy, max-pooling, bf16": {"training": "cross_entropy", "stem": "imagenet"},
    "ccl, bf16": {"training": "ccl", "params": {"warmup": 0}, "batch": 128},
    "cider, bf16": {"training": "cider", "batch": 128},
    "csi, lars, bf16": {"training": "csi", "batch": 128, "optimizer": "lars"},
    "oecl self, adamw, clip, bf16": {
        **{"training": "oecl", "params": {"form": "self", "warmup": 0}, "batch": 128},
        **{"optimizer": "adamw", "clip": 1.0, "lr": 1e-3},
    },
}  # fmt: skip


def exact() -> None:
    """Trainings twice, one that stopped, one without a graph; a study that is killed; an encoder that does not fit."""
    from oodbench.execution.pipeline import pick_device
    from oodbench.study.settings import Augment

    pick_device(GIVEN.device)  # sets the flags of reproducible numbers
    for name, given in EXACT.items():
        if left() < 45:
            say(name, "no time left", False)
            continue
        with step(name):
            how = {"augment": Augment(**given["augment"])} if "augment" in given else {}
            case, kept = Case(**{"steps": 6, "epochs": 3} | given | how), []
            first, second, resumed, eager = (case.model() for _ in range(4))
            case.train(first, hear=lambda epoch, loss, progress, kept=kept: epoch or kept.append(progress()))  # type: ignore[misc]
            case.train(second)
            case.train(resumed, done=kept[0])
            case.train(eager, graph=False)
            for what, other in (("twice", second), ("stopped and gone on", resumed), ("without a graph", eager)):
                said = off(other, first)
                say(f"{name}: {what}", said, said == "bit-equal")
    with step("a killed study"):
        killed()
    if on_cuda():
        with step("an encoder that does not fit"):
            out_of_memory()


SMALL = """
image: {{size: {size}, channels: 1, levels: 17}}
id: {{digits: {{keep: [1, 2, 3, 4]}}}}
ood: {{far: [{{noise: {{size: 8, count: 200}}}}]}}
encoder: {encoder}
recipe: {{epochs: {epochs}, batch: {batch}, lr: 0.03, warmup: 1, augment: {{crop: [0.6, 1.0], flip: 0, gray: 0}}}}
training: [supcon]
distance: [mahalanobis]
clustering: [labels]
threshold: [pooled]
"""


def small_study(name: str, encoder: str, epochs: int, batch: int, size: int = 8) -> tuple[Path, dict[str, str]]:
    """Write a study, and return it with the environment of its runs."""
    folder = Path(GIVEN.to) / "work" / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "small.yaml"
    file.write_text(SMALL.format(encoder=encoder, epochs=epochs, batch=batch, size=size), encoding="utf-8")
    return file, os.environ | {f"OODBENCH_{each}": str(folder / each.lower()) for each in ("RESULTS", "STORE", "DATA")}


def command(file: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "oodbench", "run", str(file), "--device", GIVEN.device, "--rows-only", *options]


def killed() -> None:
    """Hold the weights of a study that was killed, and went on, to those of one that was not."""
    found = {}
    for name in ("whole", "killed"):
        file, environment = small_study(name, "{resnet18: {width: 16}}", 6 if tiny() else 30, 64)
        store, words = Path(environment["OODBENCH_STORE"]), command(file, "--checkpoint-epochs", "1")
        if name == "killed":
            process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while process.poll() is None and not list(store.glob("checkpoint/*/[!.]*/manifest.json")):
                time.sleep(0.02)
            process.kill()
            process.wait()
        subprocess.run(words, env=environment, check=True, capture_output=True, timeout=max(20, left()))
        (manifest,) = store.glob("train/*/*/manifest.json")
        found[name] = json.loads(manifest.read_text())
    same = found["whole"]["files"] == found["killed"]["files"]
    resumed = found["killed"]["meta"]["resumed_at_epoch"]
    say(
        "a killed study",
        "the same weights" if same else "other weights",
        same if resumed else None,
        f"went on at {resumed}",
    )


def out_of_memory() -> None:
    """Of two encoders the first does not fit: its cells are error rows, and the second is scored all the same."""
    file, environment = small_study("room", "[{resnet18: {width: 160}}, {resnet18: {width: 8}}]", 2, 256)
    program = (
        "import sys, torch, oodbench\n"
        "torch.cuda.set_per_process_memory_fraction(600e6 / torch.cuda.get_device_properties(0).total_memory)\n"
        "rows = oodbench.run(sys.argv[1], device='cuda')\n"
        "print(rows.groupby('encoder')['error'].unique().map(list).to_json())\n"
    )
    words = [sys.executable, "-c", program, str(file)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=max(20, left()), check=False)
    errors = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {"": [done.stderr[-300:]]}
    wide = next((each for name, each in errors.items() if "160" in name), [""])
    narrow = [each for name, each in errors.items() if "160" not in name]
    say("an encoder that does not fit", str(errors)[:160], "OutOfMemory" in wide[0] and narrow == [[""]])


# ---- the default study ----------------------------------------------------------------------------


def study() -> None:
    """The default study on the device: against the same features on the CPU, and against the published rows."""
    from oodbench.store.rows import Results

    folder, frames = Path(GIVEN.to) / "work" / "study", {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, device in (("device", GIVEN.device), ("cpu", "cpu")):
        with step(f"the default study, {name}"):
            environment = os.environ | {"OODBENCH_RESULTS": str(folder / name), "OODBENCH_STORE": str(folder / "store")}
            environment["OODBENCH_DATA"] = str(folder / "data")
            words = command(ROOT / "benchmark.yaml", "--workers", str(max(1, min(6, cores() // 2))))
            words += ["--dry-data"] if tiny() else []
            words[words.index("--device") + 1] = device
            start = time.perf_counter()
            done = subprocess.run(
                [*words, *(["--cached-only"] if name == "cpu" and not tiny() else [])],
                env=environment, capture_output=True, text=True, timeout=max(20, left()), check=False,
            )  # fmt: skip
            print(done.stdout[-2000:], done.stderr[-4000:])
            (results,) = (each.parent for each in (folder / name).glob("*/plan.json"))
            rows = Results(results).current()
            taken, failed = time.perf_counter() - start, int((rows["status"] == "error").sum())
            say(
                f"rows on {device}",
                f"{len(rows)} in {taken:.0f} s",
                len(rows) > 0 and not failed,
                f"{failed} error rows",
            )
            frames[name] = rows
    if "device" in frames:
        frames["device"].to_csv(Path(GIVEN.to) / "rows.csv.gz", index=False)
    if len(frames) == 2:
        with step("the same features on both devices"):
            same_features(frames["device"], frames["cpu"])
    if len(frames) == 2 and not tiny():
        with step("beside the published rows"):
            beside_published(frames["device"], Results(ROOT / "results/published/benchmark").current())


def same_features(device: Any, cpu: Any) -> None:
    both = device.merge(cpu, on=["cell", "ood"], suffixes=("", "_cpu"))
    both = both.assign(differ=(both["auroc"] - both["auroc_cpu"]).abs())
    of_rank = both["warnings"] != ""  # a rank that is cut at rounding may be another one
    in_float32 = both["posthoc"].str.startswith("vim")  # all of pytorch-ood's ViM, whatever is left of a difference
    for name, some, holds in (
        ("", both[~of_rank & ~in_float32], True),
        (", ViM", both[~of_rank & in_float32], None),
        (", rows that warn", both[of_rank], None),
    ):
        worst = some.loc[some["differ"].idxmax()]
        what = ", ".join(
            str(worst[column]) for column in ("training", "space", "clustering", "distance", "posthoc", "ood")
        )
        far = f"{worst['differ']:.1e}; {(some['differ'] > 1e-4).sum()} of {len(some)} beyond 1e-4"
        say(f"AUROC of the same features{name}, largest difference", far, holds and bool(worst["differ"] <= 1e-4), what)
    times = both[["score_seconds", "score_seconds_cpu"]].sum()
    say("seconds of scoring, device and CPU", f"{times.iloc[0]:.0f}, {times.iloc[1]:.0f}")


def beside_published(device: Any, published: Any) -> None:
    """Hold a training's mean over cells, sets and seeds to the published one, by how much published seeds differ."""
    cells = ["training", "space", "clustering", "distance", "posthoc", "threshold", "ood"]
    a, b = (100 * each.pivot_table(index=cells, columns="seed", values="auroc") for each in (device, published))
    mean, spread = (a.mean(axis=1) - b.mean(axis=1)).dropna(), b.std(axis=1)
    for training, some in mean.groupby(level="training"):
        own = spread.groupby(level="training").mean()[training]
        say(
            f"published rows, {training}",
            f"{some.mean():+.2f} points",
            bool(abs(some.mean()) <= own),
            f"seeds: {own:.2f}",
        )


# ---- speed of training ----------------------------------------------------------------------------


class Rates(NamedTuple):
    """Seconds a step."""

    whole: float
    eager: float
    views: float
    bare: float


def bare(case: Case, steps: int) -> float:
    """Return seconds a step of forward, backward and update on tensors that are there, with no loss to speak of."""
    import torch

    model = case.model()
    network = model.network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, fused=on_cuda() or None)
    x = torch.randn(case.views, 3, 32, 32, device=GIVEN.device).contiguous(memory_format=model.layout)

    def once() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=case.precision == "bf16"):
            _, out = network(x)
        torch.stack([z.float().square().mean() for z in out.values()]).sum().backward()
        optimizer.step()

    return seconds(lambda: [once() for _ in range(steps)], 3, 2) / steps


def timed(case: Case, graph: bool) -> float:
    """Return seconds a step of the project's own loop: of epochs after the first, each of which ends with a wait."""
    ends: list[float] = []
    case.train(case.model(), graph, hear=lambda *_: ends.append(time.perf_counter()))
    return statistics.median(b - a for a, b in itertools.pairwise(ends)) / case.steps


def rates(name: str, case: Case) -> Rates:
    import torch

    from oodbench.training import batches

    if on_cuda():
        torch.cuda.reset_peak_memory_stats()
    found = Rates(
        whole=timed(case, graph=True),
        eager=timed(case, graph=False),
        views=seconds(lambda: [None for _ in batches.batches(case.training, case.recipe, case.data, 0, 0)])
        / case.steps,
        bare=bare(case, case.steps),
    )
    peak = f"peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_cuda() else ""
    speed = f"{1e3 * found.whole:.1f} ms a step of {case.views} views, {case.views / found.whole:,.0f} views/s"
    say(name, speed, None, f"{peak}; without a graph {1e3 * found.eager:.1f} ms; bare {1e3 * found.bare:.1f} ms")
    return found


def train() -> None:
    """Steps beside the bare passes of the network, and beside a stock loop."""
    from oodbench.execution.pipeline import pick_device
    from oodbench.study.settings import Augment

    pick_device(GIVEN.device)
    none = Augment(crop=None, flip=0, jitter=None, gray=0)
    crops = Augment(crop=None, pad=4, jitter=None, gray=0)
    with step("SupCon, ResNet-18, 512 x 2, bf16"):
        case = Case("supcon", epochs=4)
        found = rates("SupCon, ResNet-18, 512 x 2, bf16", case)
        graph, eager = found.bare / found.whole, found.bare / found.eager
        say(
            "  of the bare passes' speed",
            f"{graph:.2f}, without a graph {eager:.2f}",
            bar(graph >= 0.9 and eager >= 0.85),
        )
        # Of the step, for the host makes views while the device works. Alone they take longer than they add.
        added = 1 - timed(Case("supcon", epochs=4, augment=none), graph=True) / found.whole
        alone = f"{found.views / found.whole:.0%} when they are made alone"
        say("  what views add", f"{added:.0%} of a step", bar(added <= 0.1), alone)
        stock(case, found.whole)
    with step("cross-entropy, batch 128, bf16"):
        found = rates(
            "cross-entropy, batch 128, bf16", Case("cross_entropy", batch=128, steps=40, epochs=4, augment=crops)
        )
        say("  of its speed without a graph", f"{found.eager / found.whole:.2f}", bar(found.eager / found.whole >= 1.8))
    for name, given in (
        ("SupCon, width 16, 256 x 2, bf16", {"training": "supcon", "width": 16, "batch": 256}),
        ("SimCLR with blur, 512 x 2, bf16", {"training": "simclr", "augment": Augment(blur=0.5)}),
        ("SupCon, 512 x 2, float32", {"training": "supcon", "precision": "float32", "steps": 6}),
        ("CIDER, 512 x 2, bf16", {"training": "cider", "steps": 12}),
        ("SupCon, 512 x 2, bf16, compile", {"training": "supcon", "compile": True}),
    ):
        if left() < 40:
            say(name, "no time left")
            continue
        with step(name):
            rates(name, Case(**{"epochs": 4} | given))  # type: ignore[arg-type]
    with step("embedding"):
        from oodbench.study.settings import PLAIN
        from oodbench.training import embed

        model = case.model()
        own = seconds(lambda: embed.embed(model, case.data.x, PLAIN, case.recipe, 0))
        say("embedding, float32, images/s", f"{len(case.data.x) / own:,.0f}")


def plan() -> None:
    """What `plan` says of a study beside what the study then takes."""
    file, environment = small_study(
        "plan", f"{{resnet18: {{width: {8 if tiny() else 64}}}}}", 2 if tiny() else 300, 128, size=32
    )
    said = subprocess.run(
        [sys.executable, "-m", "oodbench", "plan", str(file), "--device", GIVEN.device],
        env=environment, capture_output=True, text=True, check=True, timeout=left(),
    ).stdout  # fmt: skip
    number, unit = re.findall(r"time: about ([\d.]+) (s|min)", said)[0]
    expected, start = float(number) * {"s": 1, "min": 60}[unit], time.perf_counter()
    subprocess.run(command(file), env=environment, check=True, capture_output=True, timeout=left())
    taken = time.perf_counter() - start
    apart = max(expected, taken) / max(1e-9, min(expected, taken))
    say("a study's time", f"{expected:.0f} s by plan, {taken:.0f} s by the clock", bar(apart <= 1.5))


class TwoViews:
    """Arrays that become PIL images, of which two SimCLR views are made, as people write it."""

    def __init__(self, x: Any, y: Any) -> None:
        import torchvision.transforms as T

        self.x, self.y = x.permute(0, 2, 3, 1).contiguous().cpu().numpy(), y.tolist()
        jitter = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8)
        crop = [T.RandomResizedCrop(32, scale=(0.2, 1.0)), T.RandomHorizontalFlip()]
        self.transform = T.Compose(
            [*crop, jitter, T.RandomGrayscale(0.2), T.ToTensor(), T.Normalize([0.5] * 3, [0.25] * 3)]
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        from PIL import Image

        image = Image.fromarray(self.x[i])
        return self.transform(image), self.transform(image), self.y[i]


def stock(case: Case, own: float) -> None:
    """A stock loop, PIL views by as many workers as there are cores: at most half as fast."""
    import torch
    from torch.utils.data import DataLoader

    from oodbench.toolkit.losses import contrastive

    workers = max(1, cores() - 2)
    loader = DataLoader(
        TwoViews(case.data.x, case.data.y),  # type: ignore[arg-type]
        case.batch, shuffle=True, num_workers=workers, drop_last=True, pin_memory=on_cuda(), persistent_workers=True,
        multiprocessing_context="spawn",
    )  # fmt: skip
    network = case.model().network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)

    def epoch() -> None:
        for first, second, labels in loader:
            views = torch.cat([first, second]).to(GIVEN.device, memory_format=torch.channels_last)
            with torch.autocast(str(GIVEN.device).partition(":")[0], torch.bfloat16):
                z = network(views)[1]["z"].unflatten(0, (2, -1))
            loss = contrastive(z.float(), labels.to(GIVEN.device), 0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    taken = seconds(epoch, 1, 1) / case.steps
    say(f"  a stock loop, {workers} workers", f"{own / taken:.2f} of our speed", bar(own / taken <= 0.5))


# ---- scoring --------------------------------------------------------------------------------------


CLUSTERINGS: dict[str, dict[str, Any]] = {
    "labels": {}, "kmeans": {"restarts": 2}, "spherical_kmeans": {"restarts": 2}, "gmm": {"covariance": "tied"},
    "classwise_kmeans": {"restarts": 1}, "agglomerative": {"sample": 3000}, "hdbscan": {"sample": 3000},
}  # fmt: skip


def score() -> None:
    """Clusterings and distances on both devices: seconds, and the AUROC of the same clusters."""
    import torch
    from measure import Scale
    from scoring import features

    from oodbench.execution.pipeline import pick_device
    from oodbench.study.registry import Registry
    from oodbench.toolkit.vectors import unit

    device, registry = pick_device(GIVEN.device), Registry()
    data = features(Scale(0.02 if tiny() else 1.0), 10)
    train, test, ood = unit(data.train), unit(data.test), unit(data.ood[0])
    clusters: dict[str, Any] = {}
    for name, params in CLUSTERINGS.items():
        if left() < 60:
            say(f"clustering {name}", "no time left")
            continue
        with step(f"clustering {name}"):
            cls = registry.load("clustering", name)
            given = params | ({"k": 10} if "k" in cls.__dataclass_fields__ and name != "classwise_kmeans" else {})
            plugin, taken, found = cls(**given), [], []
            for where in (device, torch.device("cpu")):
                f, y = train.to(where), data.y.to(where)
                start = time.perf_counter()
                found.append(plugin.fit(f, y if plugin.labels else None, 0))
                sync()
                taken.append(time.perf_counter() - start)
            same = float((found[0].assign.cpu() == found[1].assign).double().mean())
            clusters[name] = found[1]
            say(
                f"clustering {plugin.label}",
                f"{taken[0]:.2f} s, CPU {taken[1]:.2f} s",
                None,
                f"{same:.2%} of items alike",
            )
    for name in registry.sources("distance"):
        plugin = registry.load("distance", name)()
        if "penultimate" not in plugin.layers or left() < 20:
            continue
        with step(f"distance {name}"):
            given = clusters["gmm" if plugin.mixture else "labels"]
            distance(plugin, given, (data.train, data.test, data.ood[0]) if plugin.raw else (train, test, ood), device)
    with step("work of the host"):
        host_work(train, data.y, test, device)
    if on_cuda():
        say("peak memory of scoring, GiB", round(torch.cuda.max_memory_allocated() / 2**30, 2))


def host_work(train: Any, y: Any, test: Any, device: Any) -> None:
    """Say what probes take on the device and on the host, and the judging of rows on the host."""
    import numpy as np

    from oodbench.scoring import metrics
    from oodbench.training import probes

    fit, own = {"penultimate": train}, y[: len(test)]
    linear = probes.linear(train, y, 1)
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=len(test)), rng.normal(1, size=len(test))) for _ in range(50)]
    for name, work in (
        *(
            (f"the linear probe, {at}", lambda at=at: probes.linear(train, y, device=at))
            for at in (device, probes.HOST)
        ),
        *(
            (f"the k-NN probe, {at}", lambda at=at: probes.accuracies(linear, fit, y, {"penultimate": test}, own, at))
            for at in (device, probes.HOST)
        ),
        ("judging 50 rows", lambda: [metrics.ranking(*pair) for pair in pairs]),
    ):
        if left() > 15:
            say(name, f"{seconds(work, 1, 0):.2f} s")


def distance(plugin: Any, given: Any, sets: Any, device: Any) -> None:
    import torch

    from oodbench.scoring import metrics

    taken, areas = [], []
    for where in (device, torch.device("cpu")):
        train, *items = (each.to(where) for each in sets)
        own = type(given)(*(each.to(where) if isinstance(each, torch.Tensor) else each for each in given))
        start = time.perf_counter()
        scorer = plugin.fit(train, own)
        scores = [scorer(each[None] if plugin.views else each).score.double().cpu().numpy() for each in items]
        taken.append(time.perf_counter() - start)
        areas.append(metrics.ranking(*scores)["auroc"])
    far = abs(areas[0] - areas[1])
    say(f"distance {plugin.label}", f"{taken[0]:.2f} s, CPU {taken[1]:.2f} s", far <= 1e-4, f"AUROC off by {far:.0e}")


# ---- the command ----------------------------------------------------------------------------------


PARTS: dict[str, Work] = {
    "machine": machine, "tests": tests, "exact": exact, "study": study, "train": train,
    "plan": plan, "score": score,
}  # fmt: skip


def report(folder: Path) -> int:
    """Write the findings as a table and as JSON, print the table, and return 1 where a bar does not hold."""
    log = folder / "findings.jsonl"
    found = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found.sort(key=lambda each: list(PARTS).index(each["part"]))
    marks = {None: " ", True: "+", False: "!"}
    shape = "{mark} {part:8} {name:56.56} {value:60.60} {note}"
    lines = [shape.format(mark=marks[each["holds"]], **each).rstrip() for each in found]
    bad = sum(each["holds"] is False for each in found)
    lines.append(
        f"{len(found)} findings: {sum(each['holds'] is True for each in found)} bars hold (+), {bad} do not (!)"
    )
    (folder / "table.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "findings.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    log.unlink()
    print("\n".join(["", *lines]))
    return int(bad > 0)


def main() -> int:
    """Run each part as a process with its own limit, then report."""
    folder = Path(GIVEN.to)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "findings.jsonl").unlink(missing_ok=True)
    shutil.rmtree(folder / "work", ignore_errors=True)  # what is there already would not be made again
    for parts in (("machine",), TOGETHER, ("train",), ("plan",), ("score",)):
        with ThreadPoolExecutor() as pool:
            ended = {part: pool.submit(ended_with, part) for part in parts if part in ("machine", *GIVEN.parts)}
        for part, code in ended.items():
            if code.result():
                GIVEN.part = part
                say("the part as a whole", f"ended with {code.result()}", False, f"limit {limit_of(part)} s")
    return report(folder)


def limit_of(part: str) -> int:
    return LIMITS[part] * (10 if tiny() else 1)


def ended_with(part: str) -> int:
    """Run a part as a process of its own, and return its exit code."""
    words = [sys.executable, __file__, "--part", part, "--limit", str(limit_of(part)), "--device", GIVEN.device]
    process = subprocess.Popen([*words, "--size", GIVEN.size, "--to", GIVEN.to])
    try:
        return process.wait(limit_of(part))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS)[1:], default=list(PARTS)[1:])
    parser.add_argument("--to", default="cuda-acceptance", help="the folder of what is found")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # a process of one part
    parser.add_argument("--limit", type=float, default=0, help=argparse.SUPPRESS)
    GIVEN = parser.parse_args()
    if GIVEN.part is None:
        sys.exit(main())
    PARTS[GIVEN.part]()

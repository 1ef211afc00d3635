"""The commands of a detector that leaves the harness: write the folder of a cell, score images by one."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from oodbench.cli import arguments, screen, store_commands
from oodbench.cli.arguments import Device, Plugins, StudyFile, Without
from oodbench.errors import printable

if TYPE_CHECKING:
    from oodbench.deployment.detector import DeployedDetector, Predictions
    from oodbench.deployment.folder import DeployedFacts
    from oodbench.deployment.images import Block

TIMED, SECONDS = 20, 2.0  # single images that latency is measured on, and how long that may take
DIGITS = "{:.6g}"
To = Annotated[Path, typer.Option(help="Folder to write, which is not there yet.")]
Onnx = Annotated[bool, typer.Option("--onnx", help="Write the encoder as ONNX, too; needs the extra `onnx`.")]
Folder = Annotated[Path, typer.Argument(help="A folder that `export` wrote.", show_default=False)]
ImagePaths = Annotated[
    list[Path],
    typer.Argument(help="Images, folders of them, or arrays of them: .npy, .npz.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a line of JSON for each image.")]
ByOnnx = Annotated[bool, typer.Option("--onnx", help="Run the encoder in ONNX Runtime.")]
OwnEncoder = Annotated[
    bool, typer.Option("--own-encoder", help="Import the module of its encoder, which is not of oodbench.")
]


def export(
    study: StudyFile,
    cell: store_commands.Which,
    to: To,
    onnx: Onnx = False,
    device: Device = "auto",
    without_missing_sets: Without = False,
) -> None:
    """Write one cell as a detector that scores images without the study: a folder of tensors and JSON."""
    from oodbench.cli.kept import results
    from oodbench.deployment import folder as folders

    folders.check_free(to)
    given = results(study, screen.warn)
    found = store_commands.one_cell(study, cell, given, "export")
    name = str(found["cell"].iloc[0])
    rows = given.read(training=str(found["train_key"].iloc[0]), cells={name})
    rows = rows.sort_values("scored_at", kind="stable").drop_duplicates("ood", keep="last")
    rows = rows.drop(columns="group").merge(found[["ood", "group"]].drop_duplicates("ood"), on="ood", validate="1:1")
    from oodbench.deployment.export import ExportRequest
    from oodbench.deployment.export import export as written

    with arguments.at_work(study, device, without_missing_sets) as pipeline:
        facts = written(pipeline, ExportRequest(name, rows, to, onnx, screen.say))
    _say_exported(facts, to)


def _say_exported(facts: DeployedFacts, to: Path) -> None:
    screen.say(f"\n{facts.title}")
    for ood, each in facts.expected.items():
        screen.say(f"  {each.group}, {ood}: AUROC {100 * each.auroc:.1f}, {100 * each.ood_recall:.1f} % found")
    screen.say(f"  ID test: {100 * facts.id_recall:.1f} % accepted; cut {DIGITS.format(facts.cut)}, the study's own")
    for said in facts.warnings:
        screen.warn(said)
    files = ", ".join(f"{name} {decimal(size)}" for name, size in facts.bytes.items())
    screen.say(f"{to}: {files}")
    if facts.held:
        screen.say(f"the first {facts.held.images} ID test images: {_apart(facts.held.largest_difference)}")
        if facts.held.onnx_difference is not None:
            screen.say(f"the same through ONNX Runtime: {_apart(facts.held.onnx_difference)}")
    screen.say(f"oodbench predict {to} IMAGE…")


def _apart(difference: float) -> str:
    """Return how far scores are from the study's."""
    if not difference:
        return "scores are the study's, bit for bit"
    return f"scores differ from the study's by {difference:.1g} at most (shares of a score where it is above 1)"


def predict(
    folder: Folder,
    images: ImagePaths,
    as_json: AsJson = False,
    device: Device = "auto",
    onnx: ByOnnx = False,
    plugins: Plugins = None,
    own_encoder: OwnEncoder = False,
) -> None:
    """Say of images whether they are in or out of distribution, by a detector that `export` wrote."""
    from oodbench.deployment import folder as folders

    folders.read(folder)  # first: what is wrong with it is said without torch
    from oodbench.deployment import images as reading
    from oodbench.deployment.detector import Trust, load
    from oodbench.execution.pipeline import pick_device
    from oodbench.study.registry import Registry
    from oodbench.training.embed import EMBED_BATCH

    trust = Trust(Registry(plugins or []), own_encoder, screen.warn)
    detector = load(folder, pick_device(device), trust, onnx)
    failed: list[str] = []

    def fail(file: str, why: str) -> None:
        failed.append(file)
        screen.complain("[bold red]no image:[/]", f"{file}: {why}")

    facts, seen, seconds = detector.facts, list[reading.Block](), list[float]()
    blocks = reading.blocks(images, facts.image, facts.decoding, EMBED_BATCH, fail)
    if first := next(blocks, None):
        one = first.x[:1].copy()
        detector.predictions(detector.layers([one]))  # whatever a first pass sets up
        layers = detector.layers(_timed(chain([first], blocks), seen, seconds))
        start = time.perf_counter()
        found = detector.predictions(layers)
        seconds.append(time.perf_counter() - start)
        _print(detector, seen, found, as_json)
        alone = _alone(lambda: detector.predictions(detector.layers([one])))
        each = 1000 * sum(seconds) / len(found.score)
        batches = f"{each:.3g} ms in batches of {min(EMBED_BATCH, len(found.score))}"
        _say_measured(detector, f"{1000 * median(alone):.3g} ms an image alone (median of {len(alone)}), {batches}")
    if failed:
        raise typer.Exit(1)


def _timed(blocks: Iterable[Block], seen: list[Block], seconds: list[float]) -> Iterator[Any]:
    """Yield the images of blocks; keep whose they are, and how long whoever takes them works on each block."""
    for block in blocks:
        seen.append(block._replace(x=block.x[:0].copy()))
        start = time.perf_counter()
        yield block.x
        seconds.append(time.perf_counter() - start)


def _print(detector: DeployedDetector, seen: list[Block], found: Predictions, as_json: bool) -> None:
    files = [each for block in seen for each in block.files]
    positions = [each for block in seen for each in block.positions]
    classes = [detector.named(each) for each in found.nearest]
    table = screen.columns("file", "score", "", "nearest class" if any(classes) else "")
    table.columns[1].justify = "right"
    for file, position, score, is_ood, name, cluster in zip(
        files, positions, found.score.tolist(), found.is_ood.tolist(), classes, found.cluster.tolist(), strict=True
    ):
        if as_json:
            said = {"file": file, "position": position, "score": score, "ood": is_ood, "class": name}
            screen.out.print(json.dumps(said | {"cluster": cluster}), soft_wrap=True)
            continue
        where = file if position is None else f"{file}[{position}]"
        verdict = screen.text("out", "bold red") if is_ood else screen.text("in", "green")
        table.add_row(screen.text(where), DIGITS.format(score), verdict, screen.text(name or ""))
    if not as_json:
        screen.out.print(table)
        out = f"{int(found.is_ood.sum())} of {len(files)} out: their score is above {DIGITS.format(detector.threshold)}"
        screen.say(f"{out}; {printable(detector.label)}")


def _say_measured(detector: DeployedDetector, took: str) -> None:
    """Say on standard error how long images take, without reading them, and how much memory there was at most."""
    parts = [took]
    with suppress(ImportError):  # not on Windows
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        parts.append(f"peak memory {decimal(most)}")
    if detector.device.type == "cuda":
        import torch

        parts.append(f"of the device {decimal(torch.cuda.max_memory_allocated(detector.device))}")
    screen.err.print(f"{'; '.join(parts)}; on {detector.device}", soft_wrap=True)


def _alone(work: Callable[[], object]) -> list[float]:
    """Return the seconds that work takes each time."""
    found: list[float] = []
    while len(found) < TIMED and sum(found) < SECONDS:
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found

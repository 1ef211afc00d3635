"""How the cost of a study grows with its rows: CPU seconds and peak memory of the commands that read them.

    python perf/growth.py                           10,000, 100,000 and 1,000,000 rows: some ten minutes, 3 GB of disk
    python perf/growth.py --rows 10000 100000       smaller
    python perf/growth.py --only tables show        some of the commands
    python perf/growth.py --trainings 10000         how long so many trainings of a few cells are planned

The study is real, its rows are made up: a part for each training, as a run writes them. Each command runs in a process
of its own; seconds are user and system time together, memory is the most that was resident. `run` is the second one, of
a finished study; `finished` is what it takes beyond importing and reading the rows. Ends with 1 where a bar is missed:
an absolute one at a million rows, or a step of ten in rows that costs more than eleven times as much.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SEEDS = 5
DETECTORS = 2400  # cells of a training, each on four OOD sets
STUDY = """\
image: {{size: 8, channels: 1, levels: 17}}
id: {{digits: {{keep: [1, 2, 3, 4, 5, 7, 8]}}}}
ood:
  near: held_out
  far: [{{natural_patches: {{as: photographs}}}}, {{noise: {{size: 8, as: noise}}}}, {{glyphs: {{size: 16}}}}]
encoder: {{resnet18: {{width: 8}}}}
recipe: {{epochs: 25, batch: 64}}
seed: {seeds}
reference: {{val: 0.2}}
space: [{{layer: penultimate}}, {{layer: penultimate, unit: true}}, {{layer: projection}}]
training: {{simclr: {{temperature: {temperatures}}}}}
clustering: {{kmeans: {{k: {clusters}}}}}
distance: [cosine, euclidean, mahalanobis, relative_mahalanobis]
threshold: {{pooled: {{level: {levels}}}}}
"""
STEP = 11  # times the cost that ten times the rows may have
FLOOR = 0.5, 0.05  # seconds and GB under which nothing is said to grow: Python's own start moves by as much


class Bar(NamedTuple):
    """What a command may take at a million rows."""

    seconds: float
    gigabytes: float


BARS = {
    "tables": Bar(20, 1.5),
    "show": Bar(2, 1.5),
    "plan": Bar(20, 2),
    "run": Bar(15, 1.6),
    "finished": Bar(1, 2),
    "pending": Bar(0.1, 2),
}
MANY = Bar(60, 2)  # ten thousand trainings planned
FULL = 1_000_000


class Cost(NamedTuple):
    seconds: float  # of CPU
    gigabytes: float  # resident at most


def write_study(folder: Path, trainings: int, cells: int) -> Path:
    """Write a study of so many trainings of about so many cells."""
    seeds = min(SEEDS, trainings)
    kinds = -(-trainings // seeds)
    levels = min(10, max(1, cells // 12))
    clusters = max(1, cells // (12 * levels))
    text = STUDY.format(
        seeds=list(range(seeds)),
        temperatures=[round(0.1 + 0.0001 * i, 4) for i in range(kinds)],
        clusters=[2 + i for i in range(clusters)],
        levels=[round(0.99 - 0.01 * i, 2) for i in range(levels)],
    )
    file = folder / "growth.yaml"
    file.write_text(text)
    return file


def fill(file: Path) -> int:
    """Write made-up rows of every cell of a study, and return how many there are."""
    from oodbench.execution.runner import Runner
    from oodbench.store.columns import COLUMNS, FLOATS
    from oodbench.store.rows import frame
    from oodbench.study import reader

    runner, rng, count = Runner(reader.load(file)), np.random.default_rng(0), 0
    runner.results.write_plan(runner.plan_facts())
    shared = {"status": "ok", "version": "0.2.0", "commit": "0123456789ab", "libraries": "python 3.11, torch 2.9"}
    shared |= {"trained_on": "Some CPU, AVX512, 1 thread", "scored_on": "Some CPU, AVX512, 1 thread"}
    empty = [name for name in FLOATS if name.startswith(("compat_", "val_"))]
    for work in runner.plan.work:
        source = runner.source(work)
        wanted = pd.DataFrame(source.wanted)
        labels = pd.DataFrame([each.labels for each in wanted["detector"]])
        texts = wanted["detector"].map({each.detector: str(each.detector.canonical) for each in work.cells})
        rows = wanted.assign(detector=texts, scored_at="2026-11-27T12:00:00Z", **source.facts, **shared).join(labels)
        numbers = rng.random((len(rows), len(FLOATS)))
        measured = pd.DataFrame(numbers, columns=list(FLOATS)).drop(columns=["level", *empty])
        rows = rows.join(measured).assign(n_id=540, n_ood=600, n_train=800, n_reference=200, clusters=7, dimensions=64)
        rows["auroc"] = 0.9 - 0.1 * rows["auroc"] + 0.01 * work.run.seed
        records: Any = rows.reindex(columns=list(COLUMNS)).astype(object)
        runner.results.add(frame(records.where(records.notna(), None).to_dict("records")))
        runner.results.write_run(source.key, {"title": work.run.title, "seconds": 10.0})
        count += len(rows)
    return count


def pending(file: Path) -> float:
    """Return the CPU seconds that it takes to know what is left of a training before it is begun."""
    from oodbench.execution.runner import Runner
    from oodbench.study import reader

    runner = Runner(reader.load(file))
    source = runner.source(runner.plan.work[-1])
    assert source.wanted
    before = time.process_time()
    found = runner.bookkeeping.pending(source)
    assert not found
    return time.process_time() - before


def finished(file: Path) -> float:
    """Return the CPU seconds in which a run knows that nothing is left to do, beyond reading the rows."""
    from oodbench.cli.tables import columns
    from oodbench.execution.pipeline import Options
    from oodbench.execution.runner import Runner
    from oodbench.store.rows import OF_STUDY, Results
    from oodbench.study import reader

    runner, read = Runner(reader.load(file), Options(device="cpu")), [*OF_STUDY, "error", "train_key", *columns(None)]
    assert runner.inputs()  # modules that others import only when they are asked for
    before = time.process_time()
    Results(runner.study.results).read(read)
    between = time.process_time()
    assert runner.finished(columns(None)) is not None
    return time.process_time() - between - (between - before)


def cost(words: list[str], place: Path) -> tuple[Cost, str]:
    """Return what a command of Python takes in a process of its own, and what it prints."""
    own = {f"OODBENCH_{name}": str(place / name.lower()) for name in ("RESULTS", "STORE", "DATA")}
    out = place / "printed"
    with out.open("w") as printed:
        process = subprocess.Popen([sys.executable, *words], env=os.environ | own, stdout=printed, stderr=printed)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}:\n{out.read_text()[-3000:]}")
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6), out.read_text()


def measured(rows: int, only: list[str]) -> dict[str, Cost]:
    """Return what each command costs on a study of about so many rows."""
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        place = Path(folder)
        file = write_study(place, max(1, round(rows / (4 * DETECTORS))), DETECTORS)
        here = str(Path(__file__).resolve())
        made, count = cost([here, "--fill", str(file)], place)
        print(f"{count.strip()} rows are made: {made.seconds:.1f} s, {made.gigabytes:.2f} GB", flush=True)
        cell = cost([here, "--cell", str(file)], place)[1].split()[-1]
        command = ["-m", "oodbench"]
        words = {
            "tables": [*command, "tables", str(file)],
            "show": [*command, "show", str(file), cell],
            "plan": [*command, "plan", str(file), "--device", "cpu"],
            "run": [*command, "run", str(file), "--rows-only", "--device", "cpu"],
            "finished": [here, "--finished", str(file)],
            "pending": [here, "--pending", str(file)],
        }
        if not only or {"run", "finished"} & {*only}:
            cost(words["run"], place)  # the first one plans, as nobody has
        found = {}
        for name in only or words:
            found[name], printed = cost(words[name], place)
            if name in ("finished", "pending"):
                found[name] = found[name]._replace(seconds=float(printed.split()[-1]))
            print(f"  {name:<8} {found[name].seconds:8.2f} s {found[name].gigabytes:6.2f} GB", flush=True)
        return found


def report(sizes: list[int], by_size: dict[int, dict[str, Cost]]) -> bool:
    """Print a line for each command, and return whether every bar is met."""
    fine = True
    print("\n" + f"{'':<8}" + "".join(f"{size:>20,}" for size in sizes) + f"{'ratio':>14}")
    for name in by_size[sizes[0]]:
        costs = [by_size[size][name] for size in sizes]
        line = "".join(f"{each.seconds:>9.2f} s {each.gigabytes:>5.2f} GB" for each in costs)
        ratios = [
            (max(b.seconds, FLOOR[0]) / max(a.seconds, FLOOR[0]), max(b.gigabytes, FLOOR[1]) / a.gigabytes)
            for a, b in itertools.pairwise(costs)
        ]
        bad = [f"grows {max(each):.1f} times" for each in ratios if max(each) > STEP]
        if sizes[-1] >= FULL and (costs[-1].seconds > BARS[name][0] or costs[-1].gigabytes > BARS[name][1]):
            bad.append(f"bar {BARS[name][0]:g} s, {BARS[name][1]:g} GB")
        fine &= not bad
        last = " ".join(f"{each:.1f}" for each in (ratios[-1] if ratios else ()))
        print(f"{name:<8}{line}{last:>14}  {'; '.join(bad) or 'fine'}")
    return fine


def many(trainings: int) -> bool:
    """Print what planning so many trainings costs, and return whether it is within its bar."""
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        place = Path(folder)
        file = write_study(place, trainings, 15)
        found, _ = cost(["-m", "oodbench", "plan", str(file), "--device", "cpu"], place)
    fine = found.seconds <= MANY.seconds and found.gigabytes <= MANY.gigabytes
    said = "fine" if fine else f"bar {MANY.seconds:g} s, {MANY.gigabytes:g} GB"
    print(f"{trainings} trainings are planned: {found.seconds:.1f} s, {found.gigabytes:.2f} GB: {said}")
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, FULL])
    parser.add_argument("--only", nargs="+", choices=BARS, default=[])
    parser.add_argument("--trainings", type=int)
    for inner in ("--fill", "--cell", "--finished", "--pending"):  # what a process of its own does
        parser.add_argument(inner, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fill:
        print(fill(given.fill))
    elif given.finished:
        print(finished(given.finished))
    elif given.pending:
        print(pending(given.pending))
    elif given.cell:
        from oodbench.store.rows import Results
        from oodbench.study import reader

        print(next(iter((Results(reader.results_of(given.cell)).plan() or {})["cells"])))
    elif given.trainings:
        sys.exit(not many(given.trainings))
    else:
        sys.exit(not report(given.rows, {size: measured(size, given.only) for size in given.rows}))


if __name__ == "__main__":
    main()

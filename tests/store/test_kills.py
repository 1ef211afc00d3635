"""A process that is killed while it writes: what is there is whole, and what it left goes."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oodbench.store.artifacts import Store
from oodbench.store.files import PART, write_whole

WRITER = """
import itertools, sys
from pathlib import Path
from oodbench.store.artifacts import Store, digest
from oodbench.store.files import write_sealed
folder = Path(sys.argv[1])
def fill(made):
    for name in "abc":
        (made / name).write_bytes(bytes(100_000))
    return {}
print("begun", flush=True)
for i in itertools.count(int(sys.argv[2])):
    write_sealed(folder / "rows", str(i).encode() * 100_000)
    Store(folder / "store").write("bank", digest({"i": i}), {"i": i}, fill)
"""


@pytest.mark.slow
def test_what_a_killed_process_leaves_is_whole_or_goes(tmp_path: Path) -> None:
    rng, heard = random.Random(0), list[str]()
    for turn in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(1000 * (turn + 1))]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0, 0.1))
        writer.kill()
        writer.wait()
        writer.stdout.close()
        if (tmp_path / "rows").is_file():
            content = (tmp_path / "rows").read_text()
            assert content == content[:4] * (len(content) // 4)
            assert len(content) == 400_000
        store = Store(tmp_path / "store", heard.append)
        assert all(store.read("bank", key) for key in store.keys("bank"))
        write_whole(tmp_path / "other", b"")
        store.tidy()
        assert not [path for path in tmp_path.rglob(".*") if path.name.startswith((PART, "."))]
    assert heard == []

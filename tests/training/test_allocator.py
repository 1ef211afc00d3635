"""Freed memory stays with the process: large tensors cost no page faults the second time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from oodbench.training.train import keep_freed_memory

CODE = """
import resource, torch
from oodbench.training.train import keep_freed_memory
def faults(tensors):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.ones(2**24)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(1)
print(faults(4))
assert keep_freed_memory()
faults(20)  # until neighbours have become blocks that are large enough
print(faults(4))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_what_was_freed_is_taken_again_without_page_faults() -> None:
    """Page faults of four tensors, one after the other, in a process that has made such before."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 4 * 16  # even huge pages of 2 MB are 32 each
    assert after < 4


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oodbench.training.train.ctypes.CDLL", lambda name: object())
    assert not keep_freed_memory()

"""Files that are other ones than were published are said by whatever reads them; no key knows of it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import call
from python2_pickles import write_py2
from tiny import write

import oodbench
from oodbench.api import Download
from oodbench.data import contents, published
from oodbench.execution.pipeline import Options
from oodbench.execution.runner import Runner
from oodbench.study import reader
from oodbench.study.registry import Registry

SAID = "published f0ef6b0ae62326f3e7ffdfab6717acfc) is another file than was published"


def cifar100(root: Path) -> Path:
    """Write files of CIFAR-100's form, and return that of the test split."""
    rng, folder = np.random.default_rng(0), root / "cifar-100-python"
    for name, count in (("train", 200), ("test", 100)):
        x, y = rng.integers(0, 256, (count, 3072), dtype=np.uint8), [i % 100 for i in range(count)]
        write_py2(folder / name, {"data": x, "fine_labels": y, "coarse_labels": [each // 5 for each in y]})
    return folder / "test"


def published_as(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be the one that was published."""
    digest = f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"
    monkeypatch.setitem(published.MEMBERS, f"cifar-100-python/{path.name}", digest)


def test_every_command_and_row_says_it(tmp_path: Path) -> None:
    test = cifar100(tmp_path / "data")
    file = write(
        tmp_path / "s.yaml", ood={"far": "cifar100"}, outliers=None, training="cross_entropy", distance="cosine"
    )
    digest = hashlib.md5(test.read_bytes()).hexdigest()
    line = f"warning: cifar100, test: cifar-100-python/test (md5 {digest}, {SAID}"
    for words in (("plan",), ("prepare",), ("audit",), ("run", "--device", "cpu")):
        done = call(words[0], file, *words[1:])
        assert done.exit_code == 0, done.output
        assert sum(each.startswith(line) for each in done.stderr.splitlines()) == 1, words
    folder = tmp_path / "results" / "s"
    for name in ("plan", "audit"):
        (said,) = json.loads((folder / f"{name}.json").read_text())["other files"]
        assert said.startswith(f"cifar100, test: cifar-100-python/test (md5 {digest}, {SAID}")
    (ood,) = (each for each in json.loads((folder / "data.json").read_text())["sets"] if each["set"] == "cifar100")
    assert SAID in ood["splits"]["test"]["warnings"][-1]
    with pytest.warns(UserWarning, match=re.escape(f"cifar100, test: cifar-100-python/test (md5 {digest}, {SAID}")):
        oodbench.run(file, device="cpu")
    assert oodbench.rows(file)["warnings"].str.contains(SAID, regex=False).all()


def test_the_published_ones_and_no_key_say_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = cifar100(tmp_path / "data")
    file = write(tmp_path / "s.yaml", ood={"far": "cifar100"}, outliers=None, training="cross_entropy")
    other = Runner(reader.load(file), Options(device="cpu"))
    (source,) = map(other.source, other.plan.work)
    (said,), wanted, facts = source.notes("cifar100"), source.wanted, other.plan_facts()
    published_as(test, monkeypatch)
    same = Runner(reader.load(file), Options(device="cpu"))
    (its,) = map(same.source, same.plan.work)
    assert its.wanted == wanted
    assert its.notes("cifar100") == []
    assert SAID in said
    assert "other files" in facts
    assert same.plan_facts() == {name: each for name, each in facts.items() if name != "other files"}


def test_downloads_that_are_no_archives_have_their_own_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist = Registry().load("dataset", "mnist")()
    assert mnist.source
    folder = tmp_path / mnist.source.folder
    folder.mkdir(parents=True)
    (folder / "a.gz").write_bytes(b"a")
    (folder / "b.gz").write_bytes(b"b")
    own = f"sha256:{hashlib.sha256(b'a').hexdigest()}"
    downloads = (Download(("https://there/a.gz",), own), Download(("https://there/b.gz",), own))
    monkeypatch.setattr(type(mnist), "source", mnist.source._replace(downloads=downloads))
    hashes = contents.Contents(tmp_path / "store")
    files = [folder / "a.gz", folder / "b.gz", folder / "c"]
    (said,) = published.other_files(mnist, lambda: files[:2], tmp_path, hashes)
    assert "b.gz (sha256 3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d, published ca978" in said
    assert "a.gz" not in said
    assert published.other_files(mnist, lambda: files[:1], tmp_path, hashes) == []


def test_a_hash_is_remembered_for_as_long_as_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"a")
    hashes = contents.Contents(tmp_path / "store")
    assert hashes.md5(file) == hashlib.md5(b"a").hexdigest()
    assert hashes.each([file]) == [hashlib.sha256(b"a").hexdigest()]
    monkeypatch.setattr(contents.hashlib, "file_digest", None)
    assert hashes.md5(file) == hashlib.md5(b"a").hexdigest()
    file.write_bytes(b"bb")
    with pytest.raises(TypeError):
        hashes.md5(file)

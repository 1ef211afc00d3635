"""Submissions of strangers: what is no submission, or damaged, is named by its member, and nothing is written."""

from __future__ import annotations

import gzip
import hashlib
import json
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hand_made_rows import made

from oodbench.errors import UserError
from oodbench.exchange import archive
from oodbench.exchange.archive import FACTS, PLAN, ROWS, RUNS, STUDY, Archive

ROW = made({"cell": "c", "key": "k", "train_key": "t"})
CONTENT: dict[str, bytes] = {
    STUDY: b"id: digits\n",
    PLAN: b"{}",
    ROWS: gzip.compress(ROW.to_csv(index=False).encode()),
    RUNS: b"{}",
}
SAID: dict[str, Any] = {
    "format": 1,
    "study": "s",
    "who": "w",
    "date": "d",
    "version": "1",
    "libraries": {},
    "plugins": {},
    "changes": [],
    "features": {},
}


def zipped(path: Path, *more: tuple[str | zipfile.ZipInfo, bytes], said: Any = None, **changed: bytes) -> Path:
    """Write a zip as a stranger may: with members more, and some in other content than its facts say."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stream:
        for name, content in CONTENT.items():
            stream.writestr(name, changed.get(name.partition(".")[0], content))
        for name, content in more:
            stream.writestr(name, content)
        files = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
        stream.writestr(FACTS, json.dumps(SAID | {"files": files} | (said or {})))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    features = tmp_path / "train.safetensors"
    features.write_bytes(b"x" * 2_000_000)
    member = f"features/{'a' * 16}/train.safetensors"
    enclosed = {"a" * 16: {"val": False, "ood": {"noise": "ood-noise"}, "validation": {}}}
    archive.write(tmp_path / "deep" / "s.zip", SAID | {"features": enclosed}, CONTENT | {member: features})
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["s.zip"]
    with Archive(tmp_path / "deep" / "s.zip") as found:
        assert found.facts.who == "w"
        assert found.facts.features["a" * 16].ood == {"noise": "ood-noise"}
        assert found.read(STUDY) == CONTENT[STUDY]
        assert found.rows.equals(ROW)
        found.extract(member, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == features.read_bytes()


def test_what_cannot_be_sent_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"secret\.py is no member of a submission"):
        archive.write(tmp_path / "s.zip", SAID, CONTENT | {"secret.py": b""})
    assert list(tmp_path.iterdir()) == []


def link() -> zipfile.ZipInfo:
    found = zipfile.ZipInfo("features/link")
    found.external_attr = (stat.S_IFLNK | 0o777) << 16
    return found


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "/etc/passwd",
        "C:\\evil.py",
        "features/../../evil.safetensors",
        "features/aaaaaaaaaaaaaaaa/../x.safetensors",
        "features/aaaaaaaaaaaaaaaa/x.pt",
        "features/AAAAAAAAAAAAAAAA/x.safetensors",
        "plugin.py",
        "rows.pkl",
        "study.yaml/",
        link(),
    ],
    ids=str,
)
def test_members_are_of_a_list(tmp_path: Path, name: str | zipfile.ZipInfo) -> None:
    with pytest.raises(UserError, match="is no member of a submission"):
        Archive(zipped(tmp_path / "s.zip", (name, b"x")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_is_there_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.yaml is there twice"):
        Archive(zipped(tmp_path / "s.zip", (STUDY, b"x")))


@pytest.mark.parametrize(("member", "name"), [(STUDY, "study"), (PLAN, "plan"), (ROWS, "rows"), (RUNS, "runs")])
def test_a_member_with_another_hash_is_named(tmp_path: Path, member: str, name: str) -> None:
    other = {name: CONTENT[member] + b" "}
    with (
        Archive(zipped(tmp_path / "s.zip", **other)) as found,
        pytest.raises(UserError, match=f"{member} is damaged: it has another hash than {FACTS} says"),
    ):
        found.read(member)


def test_bytes_that_were_altered_are_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "s.zip")
    with zipfile.ZipFile(path) as stream:
        at = stream.getinfo(ROWS).header_offset + 30 + len(ROWS) + 40
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    with Archive(path) as found, pytest.raises(UserError, match=r"rows\.csv\.gz is damaged"):
        found.read(ROWS)


@pytest.mark.parametrize("cut", [0, 10, 1000, -30])
def test_what_is_no_zip_is_said(tmp_path: Path, cut: int) -> None:
    path = zipped(tmp_path / "s.zip")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"s\.zip: the zip is damaged"):
        Archive(path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"format": 2}, "submission.json is no submission's: format: Input should be 1"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"who": "x" * 501}, "who: String should have at most 500 characters"),
        ({"plugins": {"distance": {"knn": "../x"}}}, "plugins.distance.knn: String should match pattern"),
        (
            {"features": {"a" * 16: {"val": True, "ood": {"a": "../x"}, "validation": {}}}},
            "String should match pattern",
        ),
        ({"features": {"../../x": {"val": True, "ood": {}, "validation": {}}}}, "String should match pattern"),
        ({"files": {}}, "plan.json is not both in the zip and in submission.json"),
    ],
)
def test_facts_are_of_one_form(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Archive(zipped(tmp_path / "s.zip", said=said))
    assert message in str(caught.value)


def test_a_member_that_is_missing_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as stream:
        stream.writestr(FACTS, "{}")
    with pytest.raises(UserError, match=r"study\.yaml is missing"):
        Archive(tmp_path / "s.zip")


def test_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"study\.yaml has 50000000 bytes, 100000 at most are read"):
        Archive(zipped(tmp_path / "s.zip", study=bytes(50_000_000)))
    monkeypatch.setattr(archive, "UNPACKED_ROWS", 1000)
    bomb = gzip.compress(bytes(10_000))
    files = {name: hashlib.sha256(CONTENT[name]).hexdigest() for name in CONTENT}
    said = {"files": files | {ROWS: hashlib.sha256(bomb).hexdigest()}}
    with (
        Archive(zipped(tmp_path / "t.zip", said=said, rows=bomb)) as found,
        pytest.raises(UserError, match=r"rows\.csv\.gz is damaged: it unpacks to more than 1000 bytes"),
    ):
        _ = found.rows
    monkeypatch.setattr(archive, "TOTAL_BYTES", 100)
    with pytest.raises(UserError, match=r"the zip unpacks to \d+ bytes, 100 at most"):
        Archive(zipped(tmp_path / "u.zip"))


def test_a_header_that_lies_about_the_size_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "s.zip", study=bytes(3_000_000))
    content = path.read_bytes()
    assert content.count((3_000_000).to_bytes(4, "little")) == 2
    path.write_bytes(content.replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"study\.yaml is damaged"), Archive(path) as found:
        found.read(STUDY)


def test_names_that_move_a_terminal_are_shown(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Archive(zipped(tmp_path / "s.zip", ("\x1b[2Jevil", b"")))
    assert "\\x1b[2Jevil is no member" in str(caught.value)

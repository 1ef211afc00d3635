"""A submission: the rows, runs, plan and file of a study in one zip, and, if wanted, features of some of its encoders.

A zip may be a stranger's. Its members are of a list of names, their sizes are bounded before and while they are read,
each is held against its hash, nothing is unpickled, and no code of it is run.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from oodbench.errors import UserError, printable
from oodbench.store.files import ZIP_DAMAGE, writing
from oodbench.store.rows import parse

FACTS, STUDY, PLAN, ROWS, RUNS = "submission.json", "study.yaml", "plan.json", "rows.csv.gz", "runs.json"
MOST = {FACTS: 1 << 22, STUDY: 100_000, PLAN: 1 << 28, ROWS: 1 << 28, RUNS: 1 << 28}  # bytes of a member
FEATURES = re.compile(r"features/[0-9a-f]{16}/[A-Za-z0-9.=_+-]{1,130}\.safetensors")
FEATURE_BYTES, TOTAL_BYTES, UNPACKED_ROWS = 1 << 30, 1 << 32, 1 << 30
MEMBERS = 10_000
BLOCK = 1 << 20
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
Text = Annotated[str, StringConstraints(max_length=500)]
Stem = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.=_+-]{1,130}$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}([0-9a-f]{48})?$")]


class EnclosedFeatures(BaseModel):
    """The files of features of one encoder: stems of the members in its folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    val: bool  # whether a held-out reference is among them
    ood: dict[Text, Stem]  # OOD test set -> stem
    validation: dict[Text, Stem]


class SubmissionFacts(BaseModel):
    """What a submission says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1]
    study: Text
    who: Text
    date: Text  # of the packing, UTC
    version: Text  # of oodbench, that packed it
    libraries: dict[Text, Text]
    plugins: dict[Text, dict[Text, Hash]]  # room -> plugin -> hash of its code, where it was packed
    changes: list[Text]  # what `--set` changed of the study's file
    features: dict[Hash, EnclosedFeatures]  # by train_key
    files: dict[Text, Hash]  # SHA-256 of every other member


class Archive:
    """A submission to read. Raises UserError that names the member where it is damaged or no submission."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told("the zip"):
            self._zip = zipfile.ZipFile(path)
        try:
            self._check_members()
            with self._told(FACTS):
                self.facts = SubmissionFacts.model_validate_json(self._bytes(FACTS))
            named = {*self._zip.namelist()} - {FACTS}
            if lost := sorted(named ^ {*self.facts.files}):
                self.fail(lost[0], f"is not both in the zip and in {FACTS}")
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    def fail(self, member: str, message: str) -> None:
        raise UserError(f"{self.path}: {printable(member[:200])} {printable(message)}")

    def read(self, member: str) -> bytes:
        """Return a member, held against its hash."""
        with self._told(member):
            content = self._bytes(member)
        if hashlib.sha256(content).hexdigest() != self.facts.files[member]:
            self.fail(member, f"is damaged: it has another hash than {FACTS} says")
        return content

    def json(self, member: str) -> dict[str, Any]:
        with self._told(member):
            found = json.loads(self.read(member))
            if not isinstance(found, dict):
                raise ValueError("it is no mapping")
            return found

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows (COLUMNS) that are stated."""
        with self._told(ROWS):
            stream = gzip.GzipFile(fileobj=io.BytesIO(self.read(ROWS)))
            content = stream.read(UNPACKED_ROWS + 1)
            if len(content) > UNPACKED_ROWS:
                raise ValueError(f"it unpacks to more than {UNPACKED_ROWS} bytes")
            return parse(content)

    def extract(self, member: str, to: Path) -> None:
        """Write a member to a file, held against its hash."""
        found = hashlib.sha256()
        with self._told(member), writing(to), self._zip.open(member) as source, to.open("xb") as target:
            while block := source.read(BLOCK):
                found.update(block)
                target.write(block)
        if found.hexdigest() != self.facts.files[member]:
            self.fail(member, f"is damaged: it has another hash than {FACTS} says")

    def _bytes(self, member: str) -> bytes:
        with self._zip.open(member) as stream:
            content = stream.read(MOST[member] + 1)
        if len(content) > MOST[member]:
            raise ValueError(f"it has more than {MOST[member]} bytes")
        return content

    def _check_members(self) -> None:
        """Refuse what is not on the list, stands there twice, is encrypted or larger than can be."""
        members = self._zip.infolist()
        names = [each.filename for each in members]
        if len(members) > MEMBERS:
            self.fail("the zip", f"has {len(members)} members, {MEMBERS} at most are read")
        for each in members:
            is_features = FEATURES.fullmatch(each.filename) is not None
            if not is_features and each.filename not in MOST:
                self.fail(each.filename, "is no member of a submission")
            if names.count(each.filename) > 1:
                self.fail(each.filename, "is there twice")
            if each.flag_bits & 0x1 or each.compress_type not in PLAIN:
                self.fail(each.filename, "is encrypted or compressed in an unknown way")
            if each.file_size > (most := FEATURE_BYTES if is_features else MOST[each.filename]):
                self.fail(each.filename, f"has {each.file_size} bytes, {most} at most are read")
        if (total := sum(each.file_size for each in members)) > TOTAL_BYTES:
            self.fail("the zip", f"unpacks to {total} bytes, {TOTAL_BYTES} at most are read")
        if lost := [each for each in MOST if each not in names]:
            self.fail(lost[0], "is missing")

    @contextmanager
    def _told(self, member: str) -> Iterator[None]:
        """Let what reading a damaged member raises name it."""
        try:
            yield
        except UserError:
            raise
        except ValidationError as error:
            first = error.errors()[0]
            self.fail(member, f"is no submission's: {'.'.join(map(str, first['loc']))}: {first['msg']}")
        except ZIP_DAMAGE as error:
            self.fail(member, f"is damaged: {str(error).partition(chr(10))[0] or type(error).__name__}")


def write(to: Path, facts: Mapping[str, Any], members: Mapping[str, bytes | Path]) -> None:
    """Write a submission, whole or not at all, of members that are bytes or files."""
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".submit-", dir=to.parent) as folder:
            made = Path(folder) / "made.zip"
            files = {}
            with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in members.items():
                    if isinstance(content, bytes):
                        archive.writestr(_member(name), content, zipfile.ZIP_DEFLATED)
                        files[name] = hashlib.sha256(content).hexdigest()
                        continue
                    with content.open("rb") as source, archive.open(_member(name), "w", force_zip64=True) as target:
                        shutil.copyfileobj(source, target, BLOCK)
                    with content.open("rb") as source:
                        files[name] = hashlib.file_digest(source, "sha256").hexdigest()
                said = SubmissionFacts.model_validate({**facts, "files": files})
                archive.writestr(_member(FACTS), said.model_dump_json(indent=1))
            with Archive(made):  # what nobody could read is not sent
                made.replace(to)


def _member(name: str) -> zipfile.ZipInfo:
    """Return a member without a time of its own: the same content is the same zip."""
    return zipfile.ZipInfo(name)

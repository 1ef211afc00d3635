"""Parcels: files that travel between hosts as the bytes of one zip; each is held against its hash, then all written."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.filesize import decimal

from oodbench.errors import UserError, printable
from oodbench.store.files import ZIP_DAMAGE, write_whole

FACTS = "parcel.json"
OUT, BACK = 10_000_000, 256_000_000  # bytes that travel at most: to a host, and from there


class Parcel(BaseModel):
    """What a parcel says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    main: str = ""  # which of its files is the study's
    error: str = ""  # how the work ended, where that was not well
    files: dict[str, str]  # name -> SHA-256


def pack(files: Mapping[str, bytes], main: str = "", error: str = "") -> bytes:
    """Return files, by names with slashes, as a parcel."""
    said = Parcel(main=main, error=error, files={name: _hash(content) for name, content in files.items()})
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {FACTS: said.model_dump_json().encode(), **files}.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def unpack(parcel: bytes, folder: Path, most: int) -> Parcel:
    """Write the files of a parcel into a folder, and return what it says of itself.

    Raises UserError, and writes nothing, where it is damaged, unpacks to more than so many bytes or names a place
    outside the folder.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(parcel)) as archive:
            members = archive.infolist()
            if (size := sum(each.file_size for each in members)) > most:
                raise ValueError(f"it unpacks to {size} bytes, {most} at most are read")
            found = {each.filename: archive.read(each) for each in members}
        said = Parcel.model_validate_json(found.pop(FACTS))
        if len(found) + 1 != len(members) or found.keys() != said.files.keys():
            raise ValueError(f"its files are not those that {FACTS} names")
        for name, content in found.items():
            if not _is_inside(name):
                raise ValueError(f"{name} is no place in it")
            if _hash(content) != said.files[name]:
                raise ValueError(f"{name} has another hash than {FACTS} says")
    except ZIP_DAMAGE as error:
        what = "its facts cannot be read" if isinstance(error, ValidationError) else str(error).partition("\n")[0]
        raise UserError(f"the parcel is damaged: {printable(what[:200])}") from error
    for name, content in found.items():
        write_whole(folder / name, content)
    return said


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by their names in it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def check_size(files: Mapping[str, bytes], most: int, what: str, how: str) -> None:
    """Raise UserError where files are larger than may travel; `what` they are, and `how` they would be less."""
    if (size := sum(map(len, files.values()))) > most:
        largest = max(files, key=lambda name: len(files[name]))
        has = f"{decimal(size)}, and {decimal(most)} at most travel; {largest} has {decimal(len(files[largest]))}"
        raise UserError(f"{what} have {has}: {how}")


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and path.as_posix() == name


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

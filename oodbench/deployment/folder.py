"""The folder of a detector: safetensors and JSON. Whatever is read of it is held against hashes, and nothing is run."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from safetensors import SafetensorError

from oodbench.errors import UserError, printable
from oodbench.store.artifacts import digest, sha256
from oodbench.store.files import writing
from oodbench.study.settings import Encoder, ImageFormat
from oodbench.toolkit.image_files import Decoding

if TYPE_CHECKING:
    from torch import Tensor

FACTS, ENCODER, BANK, ONNX = "detector.json", "encoder.safetensors", "bank.safetensors", "encoder.onnx"
MOST = 1 << 24  # bytes of detector.json
Text = Annotated[str, StringConstraints(max_length=1000)]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Tensors = dict[str, "Tensor"]


class ExpectedNumbers(BaseModel):
    """What the row of the cell says of one OOD set; near and far are the study's groups."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    group: Text
    auroc: float
    fpr95_id: float
    ood_recall: float


class HeldAgainst(BaseModel):
    """How the folder was held against the study when it was written: the first ID test images, scored from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: int
    largest_difference: float  # of a calibrated score from the study's, in shares of it above 1; 0: bit for bit
    onnx_difference: float | None = None  # the same through ONNX Runtime


class DeployedFacts(BaseModel):
    """What detector.json says: all that is no tensor."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1]
    title: Text
    study: Text
    cell: Text
    train_key: Text
    made: dict[Text, Any]  # version, commit, libraries, machine, device, time
    numbers: dict[Text, int]  # of the arithmetic of each stage, see store/memo.py
    sources: dict[Text, Text]  # room of a plugin, or `encoder` -> hash of its code
    image: ImageFormat  # what every image is turned into
    bits: int | None  # of 16-bit images
    range: tuple[float, float] | None = None  # values of 16-bit images and floats that become 0 and 255
    exif: bool = False  # whether images are turned by EXIF's orientation
    encoder: Encoder
    heads: dict[Text, Text]  # head -> its form
    precision: Literal["float32", "float64", "bf16"]
    shifted: bool  # whether images are seen in four quarter turns
    classes: list[Text]
    detector: dict[Text, Any]  # plugins with their parameters, as the column of rows has them
    seed: int
    covariance_type: Literal["diag", "tied", "full"] | None  # of the clusters, where they are a mixture
    cut: float  # what scores above it is OOD
    reference: dict[Text, float]  # quantile -> calibrated score of the ID reference
    accuracy: float | None  # of ID test
    id_recall: float  # share of ID test that is accepted
    expected: dict[Text, ExpectedNumbers]  # OOD set -> numbers
    warnings: list[str]  # of the rows
    held: HeldAgainst | None
    bytes: dict[Text, int]
    files: dict[Text, Hash]

    @property
    def decoding(self) -> Decoding:
        """How files of images are decoded: as those of the study's ID set."""
        return Decoding(self.bits, self.range, self.exif)


def check_free(to: Path) -> None:
    """Raise UserError where a folder cannot be written there because something is there."""
    if to.exists() or to.is_symlink():
        raise UserError(f"{to} is there already; give another folder, or remove it")


def write(to: Path, fill: Callable[[Path], DeployedFacts]) -> DeployedFacts:
    """Write a folder whole or not at all: `fill` writes tensors and returns the facts, but for bytes and hashes."""
    check_free(to)
    with writing(to):
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=to.parent) as made:
            new = Path(made) / "new"
            new.mkdir()
            facts = fill(new)
            files = sorted(new.iterdir())
            sealed = {"bytes": {each.name: each.stat().st_size for each in files}}
            facts = facts.model_copy(update=sealed | {"files": {each.name: sha256(each) for each in files}})
            plain = facts.model_dump(mode="json")
            text = json.dumps({**plain, "digest": digest(plain)}, indent=1, ensure_ascii=False)
            (new / FACTS).write_text(text, encoding="utf-8")
            for each in files:  # safetensors' are for their owner alone
                each.chmod((new / FACTS).stat().st_mode)
            check_free(to)
            new.rename(to)
    return facts


def save(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors, from whatever device they are on."""
    from safetensors.torch import save_file

    save_file({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, file)


def read(folder: Path) -> DeployedFacts:
    """Return the facts of a folder. Raises UserError that names the file that is missing, damaged or altered."""
    file = folder / FACTS
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; oodbench export STUDY CELL --to FOLDER writes one")
    if not file.is_file():
        raise UserError(f"{folder} is no detector: it has no {FACTS}")
    if file.stat().st_size > MOST:
        raise UserError(f"{file} has more than {MOST} bytes")
    try:
        plain = json.loads(file.read_bytes())
        if not isinstance(plain, dict):
            raise ValueError("it is no mapping")
        if plain.get("format") != 1:
            raise UserError(
                f"{file}: its format is {printable(repr(plain.get('format')))[:100]}, this oodbench reads 1"
            )
        whole = plain.pop("digest", None)
        if digest(plain) != whole:
            raise ValueError("it is not what its digest says: it was altered")
        facts = DeployedFacts.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(map(str, first["loc"])))[:200]
        raise UserError(f"{file} is no detector's: {where}: {printable(first['msg'])[:200]}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {printable(str(error).partition(chr(10))[0])[:200]}") from error
    for name in (ENCODER, BANK):
        if name not in facts.files:
            raise UserError(f"{file} does not name {name}")
    return facts


def verified(folder: Path, facts: DeployedFacts, name: str) -> Path:
    """Return a file of a folder. Raises UserError where it is missing, or is not the one that was written."""
    file = folder / name
    if not file.is_file():
        raise UserError(f"{file} is missing")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != facts.files[name]:
        raise UserError(f"{file} is damaged: it has another hash than {FACTS} says")
    return file


def tensors(folder: Path, facts: DeployedFacts, name: str) -> Tensors:
    """Return the tensors of a file of a folder, on the CPU. Raises UserError as `verified` does."""
    return loaded(verified(folder, facts, name))


def loaded(file: Path) -> Tensors:
    """Return the tensors of a file, on the CPU. Raises UserError where it cannot be read."""
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error


def verified_onnx(folder: Path, facts: DeployedFacts) -> Path:
    """Return the encoder of a folder as ONNX. Raises UserError where it was written without."""
    if ONNX not in facts.files:
        raise UserError(f"{folder} has no {ONNX}; oodbench export STUDY CELL --to FOLDER --onnx writes one with it")
    return verified(folder, facts, ONNX)

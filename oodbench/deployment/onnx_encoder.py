"""The encoder as ONNX: float32 images (B, C, H, W) in [0, 1] in, its layers out."""

from __future__ import annotations

import copy
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from oodbench.errors import UserError
from oodbench.training import embed, networks

WRITES, RUNS = ("onnx", "onnxscript"), ("onnxruntime",)
INPUT, FIRST = "images", "penultimate"


class _Outputs(nn.Module):
    """A network whose layers are one tuple: ONNX has no mappings."""

    def __init__(self, model: networks.Trained) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        h, out = self.model(images)
        return (h, *out.values())


def check_installed(modules: tuple[str, ...]) -> None:
    """Raise UserError where a module of the extra is not here."""
    if lost := [each for each in modules if find_spec(each) is None]:
        raise UserError(f"--onnx takes {', '.join(lost)}, not here: pip install 'oodbench[onnx]'")


def write(model: networks.Trained, size: int, file: Path) -> None:
    """Write a network as ONNX, in float32. Raises UserError where torch cannot."""
    check_installed((*WRITES, *RUNS))
    plain = _Outputs(copy.deepcopy(model).cpu().float().eval())
    names = [FIRST, *(embed.HEAD_LAYER.get(each, each) for each in model.network.heads)]
    example = torch.rand(2, model.mean.shape[1], size, size, dtype=torch.float32)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                plain,
                (example,),
                str(file),
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # of many kinds, by what the network does
        said = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        raise UserError(f"torch cannot write this encoder as ONNX, leave --onnx out: {said}") from error


class OnnxEncoder(networks.Trained):
    """The network of a detector, its passes done by ONNX Runtime on the CPU."""

    def __init__(self, model: networks.Trained, file: Path) -> None:
        check_installed(RUNS)
        import onnxruntime

        super().__init__(model.network, model.mean.shape[1])
        self.to(model.mean.device)
        try:
            self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:  # its own kinds, which derive from Exception alone
            raise UserError(f"{file}: ONNX Runtime cannot run it: {str(error).partition(chr(10))[0]}") from error

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return penultimate features and head outputs of float images (B, C, H, W) in [0, 1]."""
        found = self._session.run(None, {INPUT: x.float().cpu().contiguous().numpy()})
        h, *outputs = (torch.from_numpy(each).to(x.device) for each in found)
        return h, dict(zip(self.network.heads, outputs, strict=True))

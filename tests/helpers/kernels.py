"""How many operations a piece of work is: on a CUDA device, the kernels that the host launches."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LOOKS = {  # operations that touch no data
    *("view", "_unsafe_view", "transpose", "t", "expand", "select", "slice", "unsqueeze", "squeeze", "permute"),
    *("alias", "split", "unbind", "unfold", "detach", "as_strided", "_reshape_alias", "empty", "new_empty"),
    *("reshape", "split_with_sizes"),
}


class Kernels(TorchDispatchMode):
    """Counts operations that touch data, and keeps the shapes that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found, name = func(*args, **(kwargs or {})), func._schema.name.split("::")[1]
        if name not in LOOKS:
            self.made.append((name, tuple(found.shape) if isinstance(found, Tensor) else ()))
        return found

"""Makes `import torchvision` work beside a CPU build of torch: call `importable` before what imports torchvision.

The common torchvision wheel is built for CUDA. Beside a CPU build of torch its compiled operators cannot be loaded,
and its Python part then fails on `register_fake("torchvision::nms")`: "operator torchvision::nms does not exist".
open_clip, peft and transformers' SAM 2 fail with it, though nothing of ours calls these operators.
Declaring the two schemas is all that is missing. It has to be done in every process, workers too.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

# What torchvision's compiled part would declare. A library's declarations live as long as its object.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[object] = []


def importable() -> None:
    """Import torchvision, declaring what is missing; nothing more where it imports as it is or is not installed.

    Raises what the import raises on a build of torch with CUDA or ROCm: there the two packages do not belong together.
    """
    if "torchvision" in sys.modules:
        return
    import torch

    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or torch.version.cuda or torch.version.hip:
            raise
        fragment: Any = torch.library.Library  # torch has no types here
        library = fragment("torchvision", "FRAGMENT")
        for schema in _SCHEMAS:
            library.define(schema)
        _declared.append(library)
        importlib.import_module("torchvision")

"""Import torchvision also where its compiled part does not fit the installed torch."""

import importlib
from types import ModuleType

import torch


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators do not fit the installed torch.

    Beside a CPU build of torch the compiled part of a torchvision built for CUDA cannot be
    loaded, and the import fails because the operator ``torchvision::nms`` does not exist. The
    tutorials need data sets, transforms and models but none of those operators: declaring them is
    enough to import the rest. Calling an operator that is only declared still fails.

    Returns
    -------
    module
        torchvision.

    Raises
    ------
    ImportError, RuntimeError
        Whatever the import raises for any other reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for operator in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{operator}",
            "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        )
    return importlib.import_module("torchvision")

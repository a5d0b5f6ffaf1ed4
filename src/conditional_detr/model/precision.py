"""Where mixed precision must not reach: in half precision a coordinate has some ten bits, so boxes would move by pixels."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """A context without autocast on the device of ``x``."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)  # which knows no meta tensors

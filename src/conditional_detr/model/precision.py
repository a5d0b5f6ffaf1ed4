"""Exclusion from mixed precision: half precision gives a coordinate about ten bits, so boxes would shift by pixels."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Return a context that disables autocast on the device of ``x``."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)  # autocast has no meta device

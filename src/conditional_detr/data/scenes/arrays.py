"""Types of the arrays and numbers in this package."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Random = np.random.Generator
Floats = NDArray[np.floating]  # colors are 0..255, textures and coverage 0..1
Number = float | int
Points = Sequence[tuple[Number, Number]]

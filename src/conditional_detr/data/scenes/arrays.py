"""Types of the arrays and random numbers in this package."""

import numpy as np
from numpy.typing import NDArray

Random = np.random.Generator
Floats = NDArray[np.floating]  # colors are 0..255, textures and coverage 0..1
Bytes = NDArray[np.uint8]

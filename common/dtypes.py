"""The numpy types of the bytes of a tensor, for the processes that touch tensors.

Types are named as numpy (and ml_dtypes, for bfloat16) names them. bfloat16 has no numpy type of its own, so its
storage type is uint16; only a frontend, which converts, needs more than storage.
"""

import numpy as np

from common.tensors import ITEMSIZE

STORAGE: dict[str, np.dtype] = {
    name: np.dtype(np.uint16 if name == "bfloat16" else name) for name in ITEMSIZE
}
"""Name of an element type → numpy type of the bytes in memory."""

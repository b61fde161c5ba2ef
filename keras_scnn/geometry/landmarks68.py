"""Index sets of the 68 landmarks of iBUG's markup."""

import numpy as np

JAW = slice(0, 17)
# Index of the landmark that each one becomes in a mirror image.
MIRROR68 = np.array(
    [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48]
    + [59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
)
MIRROR68.setflags(write=False)

"""How reliable a photo is: small, turned and half-hidden faces show a person less well.

Measured on 4,291 photos of 200 people of CelebA, by two networks: the preset 'aflw-mobilenet-0.5',
and one trained for identity, which had seen 170 of the people. The squared distance of a photo's
shape from the mean of the person's other photos grows

- with the yaw: 1 at the front, 1.4 at 37 degrees, about 2 at 55, and more beyond;
- with a lower score of the face detector, which sees what hides or blurs a face: by 6 % for each
  0.01;
- in small faces: 1.6-fold if the crop's side has 30 px in the photo, 3-fold at 20 px, 5-fold at
  14 px (identity network; the other one starts to suffer at 20 px).

Quality is the inverse of the product. Measured again for 'mobile' on 5,062 photos of 121 people
that it was not trained on, three in five of them shrunk to 20 or 40 px, blurred or darkened: rank
correlation 0.43 with the shape's squared distance, 0.60 with the feature's. The length of the
feature before normalization, as the network's own measure of uncertainty, has 0.45 and 0.56, and
both together hardly explain more, so the networks do not output it. Sharpness (variance of the
Laplacian) improves the correlation with the feature's distance only.
"""

from __future__ import annotations

import numpy as np

YAW_DEGREES, SCORE_SLOPE, GOOD_SCORE, SIZE_PX, SIZE_POWER = 55.0, 6.0, 0.9, 25.0, 3
# Fitted on 10 people of PINS it is 0.63 and 0.67 ('mobile', 'accurate'); on 111 others, 0.3 to 0.6
# do about equally well.
DOUBT_POWER = 0.4


def photo_quality(yaw_degrees: float, score: float, width: float) -> float:
    """The inverse of the expected variance of a photo's shape.

    Args:
        yaw_degrees: of the head, to either side.
        score: of the face detector, 0 to 1.
        width: of the standard crop, px of the photo; above 0.

    Returns:
        1 for a frontal, large face with a score of 0.9, and up to 1.8 for a higher one; above 0.
    """
    turned = 1 + (yaw_degrees / YAW_DEGREES) ** 2
    hidden = np.exp(SCORE_SLOPE * (GOOD_SCORE - score))
    small = 1 + (SIZE_PX / width) ** SIZE_POWER
    return float(1 / (turned * hidden * small))


def certainty(first: float, second: float) -> float:
    """How much evidence a comparison of two photos has, 0 to 1: a factor on its log-odds.

    A probability is calibrated on ordinary photos. Two poor ones of one person are farther apart,
    and judged to be of two people with too much confidence. With this factor the log loss of
    'mobile' on pairs of 111 people, three in five photos degraded as above, falls from 0.570 to
    0.509 and the expected calibration error from 0.101 to 0.050 ('accurate': 0.484 to 0.408, 0.090
    to 0.049); on unaltered photos the log loss changes from 0.300 to 0.306 and the calibration
    error from 0.037 to 0.036 ('accurate': 0.202 to 0.205, 0.033 to 0.027).

    Args:
        first, second: from ``photo_quality``.

    Returns:
        1 leaves a probability unchanged, 0 gives one half.
    """
    return float((min(first, 1.0) * min(second, 1.0)) ** DOUBT_POWER)

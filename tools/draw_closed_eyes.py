"""Draw docs/closed_eyes.png: a photo, its copies with eyes closed in the image, and their heads.

    python tools/draw_closed_eyes.py [PRESET]

The photo is scikit-image's astronaut (NASA, public domain). Needs scikit-image.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from skimage import data

from keras_scnn import Reconstructor
from keras_scnn.data.synthesis.eyelids import LIDS, close_lid
from keras_scnn.io import write_image
from keras_scnn.reconstruction.drawing import draw_view
from keras_scnn.settings import command

OUT = Path(__file__).parents[1] / "docs" / "closed_eyes.png"
REMAINING, SIZE = (1.0, 0.5, 0.0), 240  # remaining shares of the opening; px of an image


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", nargs="?", default="mobile")
    reconstructor = Reconstructor.from_preset(parser.parse_args(argv).preset)
    photo = data.astronaut()
    face = reconstructor.largest(photo)
    x0, y0, x1, y1 = np.round([face.box.x0, face.box.y0, face.box.x1, face.box.y1]).astype(int)
    columns = []
    for remaining in REMAINING:
        image, landmarks = photo, face.landmarks
        for side in LIDS:
            image, landmarks = close_lid(image, landmarks, side, remaining)
        made = reconstructor.largest(image)
        head = cv2.resize(draw_view(made.model, made.vertices, 0), (SIZE, SIZE))
        crop = cv2.resize(image[y0:y1, x0:x1], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        columns.append(np.vstack([crop, head]))
    write_image(OUT, np.hstack(columns))


if __name__ == "__main__":
    sys.exit(main())

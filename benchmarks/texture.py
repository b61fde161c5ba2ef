"""Measure the CPU time of a texture, and of finding and reconstructing the face.

python benchmarks/texture.py [PRESET]
"""

import argparse
import time

import numpy as np
from skimage import data

from keras_scnn import Reconstructor
from keras_scnn.settings import DEFAULT_PRESET
from keras_scnn.texturing.texture import PosedPhoto, person_texture, photo_texture

ROUNDS = 7


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", nargs="?", default=DEFAULT_PRESET)
    image = data.astronaut()
    reconstructor = Reconstructor.from_preset(parser.parse_args().preset)
    face = reconstructor.largest(image)
    posed = face.posed_vertices
    yardstick = seconds(lambda: reconstructor.largest(image))
    print(f"finding and reconstructing: {1000 * yardstick:.0f} ms of CPU (median of {ROUNDS})")
    photo = PosedPhoto(image, posed)
    for name, work in (
        ("albedo, 512 texels", lambda: photo_texture(face.model, image, posed)),
        ("baked, 512 texels", lambda: photo_texture(face.model, image, posed, baked=True)),
        ("albedo, 2048 texels", lambda: person_texture(face.model, [photo], 2048)),
        ("albedo of 5 photos, 512 texels", lambda: person_texture(face.model, [photo] * 5)),
    ):
        taken = seconds(work)
        print(f"{name}: {taken / yardstick:.0f} times that, {1000 * taken:.0f} ms")


def seconds(work) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return float(np.median(times))


if __name__ == "__main__":
    main()

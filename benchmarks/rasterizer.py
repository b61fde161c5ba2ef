"""Faces rendered per second at 120 px on one thread, with and without computing the shapes.

python benchmarks/rasterizer.py
"""

import time

import numpy as np

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.geometry.shading import render
from keras_scnn.morphable_model import MorphableModel

SIZE, FACES = 120, 64


def main() -> None:
    model, rng = MorphableModel.open_face(), np.random.default_rng(0)
    identity = rng.normal(size=(FACES, model.n_identity))
    expression = rng.uniform(0, 0.3, (FACES, model.n_expression))
    rotation = rotation_from_euler(rng.uniform(-0.7, 0.7, (FACES, 3)))
    center = np.tile([SIZE / 2, SIZE / 2, 0.0], (FACES, 1))
    camera = compose(rotation, np.full(FACES, 0.55), center)
    texture, light = rng.uniform(100, 200, (128, 128, 3)), np.zeros((9, 3))
    light[0] = 3
    background = np.zeros((SIZE, SIZE, 3))

    def draw(points):
        for face in points:
            render(face, model.triangles, model.uv, texture, light, background)

    def shape():
        return project(camera, model.vertices(identity, expression))

    points = shape()
    draw(points[:2])  # compiles
    for name, work in (("render", lambda: draw(points)), ("shape + render", lambda: draw(shape()))):
        rounds = []
        for _ in range(7):
            start = time.perf_counter()
            work()
            rounds.append(FACES / (time.perf_counter() - start))
        print(f"{name}: {np.median(rounds):.0f} faces/s (median of 7 rounds of {FACES})")


if __name__ == "__main__":
    main()

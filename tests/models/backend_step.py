"""One training step of the Siamese network on another backend, with TensorFlow out of reach.

    KERAS_BACKEND=jax python tests/models/backend_step.py jax

Prints the loss. ``test_siamese`` runs it for jax, and for torch where that is installed.
"""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "models")]


class WithoutTensorFlow:
    """A finder of modules that does not find TensorFlow."""

    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] == "tensorflow"
        return None if hidden else self._finder.find_spec(name, path, target)


def main(backend: str) -> None:
    sys.meta_path[:] = [WithoutTensorFlow(finder) for finder in sys.meta_path]
    import conftest
    import keras
    import test_siamese
    from tiny_encoder import known_encoder

    assert keras.backend.backend() == backend
    model = conftest.tiny_face_model.__wrapped__()
    whitening = conftest.tiny_whitening.__wrapped__(model)
    with known_encoder():
        network = test_siamese.settled(test_siamese.make(model, whitening))
    test_siamese.compile_all(network, model, whitening)
    print(float(network.train_on_batch(*test_siamese.batch(model))[0]))
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    main(sys.argv[1])

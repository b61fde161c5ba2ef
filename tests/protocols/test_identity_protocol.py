"""The covariance within people, learned from records."""

from types import SimpleNamespace

import numpy as np

from keras_scnn.protocols import identity


def test_the_covariance_is_learned_from_all_photos_of_a_person(monkeypatch, open_face):
    """Of records that have the first photos of all people first, only first photos were used."""
    seen = []

    def predicted(preset, images):
        seen.extend(images)
        rng = np.random.default_rng(0)
        parameters = SimpleNamespace(identity=rng.normal(size=(len(images), open_face.n_identity)))
        return SimpleNamespace(parameters=parameters)

    monkeypatch.setattr(identity, "predict", predicted)
    monkeypatch.setattr(identity, "COVARIANCE_PHOTOS", 6)
    records = SimpleNamespace(identity=np.tile([7, 3, 9, 4, 5], 2), images=np.arange(10))
    preset = SimpleNamespace(face_model=open_face)
    assert identity.learn_covariance(preset, records, np.arange(10)).shape == (80, 80)
    assert seen == [0, 5, 1, 6, 2, 7]

"""Settings are checked when they are made, before anything heavy is imported."""

import dataclasses
import subprocess
import sys

import pytest

from keras_scnn.settings import configuration, read_yaml
from keras_scnn.training import config as module
from keras_scnn.training.config import TrainConfig, recipe_path


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"p_same": 7.0}, "p_same is 7.0; it must lie in 0 to 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"encoder": "resnet51"}, "encoder is 'resnet51'.*; known are mobilenet_0.5"),
        ({"precision": "float8"}, "precision is 'float8'.*; known are float32"),
        ({"weight_average": 1.0}, "weight_average is 1; it must be below 1"),
        ({"crop_size": 8}, "crop_size is 8; it must be 32 or more"),
        ({"feature_size": 0}, "feature_size is 0; that is for batches of 'groups'"),
        ({"contrast_weight": -0.1}, "contrast_weight is -0.1; it must be 0 or more"),
        ({"margin_quantile": 1.5}, "margin_quantile is 1.5; it must lie in 0 to 1"),
        ({"weight_decay": 0.1}, "weight_decay is for the optimizer 'adamw', not 'adam'"),
        ({"start_with": "joined"}, "start_with 'joined' needs identity_encoder"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batches": "groups", "p_same": 0.5}, "p_same is for batches of 'pairs', not 'groups'"),
        ({"group_people": 9}, "group_people is for batches of 'groups' or 'matching', not 'pairs'"),
        ({"teacher_share": 0.6}, "teacher_share is for batches of 'groups', not 'pairs'"),
        ({"batches": "matching", "augmentation": 1.0}, "augmentation is for batches of 'pairs'"),
        ({"batches": "groups", "group_share": 0.5}, "group_share is for batches of 'matching'"),
    ],
)
def test_settings_without_effect_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


def test_all_values_of_a_run_make_its_configuration_again():
    for name in ("robust", "matching", "landmarks", "paper"):
        config = configuration(TrainConfig, read_yaml(recipe_path(name)))
        assert TrainConfig(**dataclasses.asdict(config)) == config


def test_the_matching_recipe_is_the_robust_one_but_for_what_it_says(tmp_path):
    robust, matching = (read_yaml(recipe_path(name)) for name in ("robust", "matching"))
    assert matching["embedding_weight"] == robust["embedding_weight"] == 1.2
    assert (robust["batches"], matching["batches"]) == ("groups", "matching")


def test_settings_need_no_framework():
    code = (
        f"import sys, {module.__name__}; "
        "heavy = {'keras', 'tensorflow', 'jax', 'cv2', 'numba', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

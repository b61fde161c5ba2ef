"""Settings are checked when they are made, before anything heavy is imported."""

import dataclasses
import re
import subprocess
import sys

import pytest

from keras_scnn.settings import configuration, read_yaml
from keras_scnn.training import config as module
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.recipes import recipe_path

MATCHING = {"batches": "matching", "devices": "1"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"p_same": 7.0}, "p_same is 7.0; it must lie in 0 to 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"encoder": "resnet51"}, "encoder is 'resnet51'.*; choose from mobilenet_0.5"),
        ({"precision": "float8"}, "precision is 'float8'.*; choose from float32"),
        ({"weight_average": 1.0}, "weight_average is 1; it must be below 1"),
        ({"crop_size": 8}, "crop_size is 8; it must be 32 or more"),
        ({"feature_size": 0}, "feature_size is 0; that is for batches of 'groups'"),
        ({"contrast_weight": -0.1}, "contrast_weight is -0.1; it must be 0 or more"),
        ({"margin_quantile": 1.5}, "margin_quantile is 1.5; it must lie in 0 to 1"),
        ({"weight_decay": 0.1}, "weight_decay is for the optimizer 'adamw', not 'adam'"),
        ({"start_with": "joined"}, "start_with 'joined' needs identity_encoder"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"seed": 1 << 32}, "seed is 4294967296; it must be 4294967295 at most"),
        ({"minutes": float("inf")}, "minutes is inf; it must be finite"),
        ({"cache_gigabytes": float("inf")}, "cache_gigabytes is inf; it must be finite"),
        ({"join_seconds": float("inf")}, "join_seconds is inf; it must be finite"),
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
        (MATCHING | {"group_share": 0.5, "group_people": 0}, "group_share needs group_people and"),
        (MATCHING | {"group_share": 0.5, "single_photos": 0}, "and single_photos above 0"),
        (MATCHING | {"blend_groups": 0.5, "group_people": 0}, "blend_groups has no effect without"),
        ({"data_weights": "1,2"}, "data_weights has no effect without data"),
        ({"start": "", "start_with": "network"}, "start_with has no effect without start"),
        (
            {"batches": "groups", "profile_degrees": 60.0},
            "profile_degrees has no effect without profile_emphasis",
        ),
        ({"landmark_weight": 0.0, "opening_weight": 0.2}, "opening_weight has no effect without"),
        ({"batches": "groups", "feature_size": 0, "feature_channels": 8}, "without feature_size"),
        ({"batches": "groups", "single_photos": 0, "profile_emphasis": 2.0}, "without single_ph"),
    ],
)
def test_settings_without_effect_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


def test_a_setting_is_refused_beside_one_that_replaces_it():
    given = {"fresh": False, "people": 9, "photos": 9, "crop_size": 64, "yaw": 9.0, "pitch": 9.0}
    given |= {"roll": 9.0, "spread": 0.5, "portraits": True, "encoder_weights": "imagenet"}
    given |= {"margin_quantile": 0.7}
    other = {f.name: f.metadata.get("instead_of") for f in dataclasses.fields(TrainConfig)}
    assert set(given) == {name for name in other if other[name]}
    for name, value in given.items():
        with pytest.raises(ValueError, match=f"^{name} has no effect beside {other[name]}"):
            TrainConfig(**{name: value, other[name]: 1.0 if other[name] == "margin" else "given"})


HOSTS = {"hosts": 2, "coordinator": "node0:29500", "minutes": 0.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devices": "x"}, "devices is 'x'; it must be 'all', or 1 or more"),
        ({"devices": "0"}, "devices is '0'"),
        ({"rank": 1}, "rank is 1; with hosts 1 it must be below that"),
        (HOSTS | {"rank": 2}, "rank is 2; with hosts 2"),
        (HOSTS | {"coordinator": ""}, "coordinator is ''; it must be HOST:PORT of rank 0"),
        (HOSTS | {"minutes": 5.0}, "clocks of several hosts differ; give --minutes 0"),
        ({"batches": "matching", "devices": "all"}, "'matching' are made and trained on by one"),
        ({"accumulate": 3}, "accumulate is 3: a batch has 32 rows"),
        (
            {"batches": "groups", "accumulate": 2, "pretrain_steps": 9},
            "accumulate is 2: a batch has 24 rows, which it must divide, and pretrain_steps",
        ),
    ],
)
def test_places_where_a_run_cannot_train_are_refused(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "name, modes",
    [
        ("batch_size", "pairs"),
        ("augmentation", "pairs, groups"),
        ("augment_on", "groups"),
        ("teacher_share", "groups"),
        ("recognizer", "groups, matching"),  # of start_with 'joined', in groups too
        ("sface", "matching"),
    ],
)
def test_the_help_names_the_batches_that_a_setting_is_for(name, modes):
    help_of = {one.name: one.metadata["help"] for one in dataclasses.fields(TrainConfig)}
    assert help_of[name].startswith(f"{modes}: ")
    assert help_of["steps"] == "number of batches"


def test_a_run_folder_does_not_store_where_a_run_trains():
    """So a resumed run does not wait for hosts that no longer exist."""
    assert TrainConfig(seed=3, devices="all", rank=1, **HOSTS).kept() == TrainConfig(
        seed=3, minutes=0.0
    )


def test_processes_share_all_settings_but_ranks_addresses_and_paths():
    one, other = (
        TrainConfig(rank=rank, run=f"runs/{rank}", data=f"/disk{rank}/records", **HOSTS)
        for rank in (0, 1)
    )
    assert one.of_all_processes() == other.of_all_processes()
    changed = dataclasses.replace(other, seed=1)
    assert one.of_all_processes() != changed.of_all_processes()


def test_a_configuration_is_restored_from_all_its_values():
    for name in ("robust", "matching", "landmarks", "paper"):
        config = configuration(TrainConfig, read_yaml(recipe_path(name)))
        assert TrainConfig(**dataclasses.asdict(config)) == config


def test_the_matching_recipe_is_the_robust_one_with_its_own_changes(tmp_path):
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


@pytest.mark.parametrize(
    ("values", "rows"),
    [
        ({"batches": "groups"}, 3 * 4),
        ({"batches": "groups", "fresh": False}, 3 * 4 + 5),
        ({"batches": "groups", "data": "records"}, 3 * 4 + 5),
        ({"batches": "matching"}, 3 * 4 + 5),
    ],
)
def test_a_batch_of_people_rendered_for_it_has_only_groups(values, rows):
    config = TrainConfig(group_people=3, group_photos=4, single_photos=5, **values)
    assert config.batch_rows() == [(rows, 1), (3 * 4, 1)]

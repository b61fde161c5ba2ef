import argparse
import dataclasses
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from keras_scnn.data.labels.fit import Labeling
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig
from keras_scnn.folders.batch import BatchSettings
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.settings import (
    add_options,
    check_above,
    check_at_least,
    check_share,
    check_types,
    check_workers,
    command,
    configuration,
    folders_of,
    from_options,
    read_yaml,
    whole,
)
from keras_scnn.storage import atomic_path
from keras_scnn.texturing.texture import photo_texture
from keras_scnn.training.config import TrainConfig
from keras_scnn.video.frames import ClipSettings


@dataclass(frozen=True)
class Settings:
    steps: int = 10
    learning_rate: float = field(default=0.5, metadata={"help": "how fast, 100 % at most"})
    name: str = "x"
    flip: bool = True

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be 1 or more")


def parsed(*arguments: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_options(parser, Settings)
    return from_options(Settings, parser.parse_args(arguments))


def test_without_arguments_the_defaults_hold():
    assert parsed() == Settings()


def test_each_type_is_read_from_the_command_line():
    result = parsed("--steps", "3", "--learning-rate", "1e-3", "--name", "y", "--flip", "no")
    assert result == Settings(3, 1e-3, "y", False)


def test_the_command_line_overrides_the_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("steps: 3\nlearning_rate: 2\n")
    assert parsed("--config", str(path), "--steps", "4") == Settings(4, 2.0)


def test_a_float_may_be_written_as_an_int_or_with_an_exponent(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("learning_rate: 1e-3\n")  # text to YAML 1.1
    assert parsed("--config", str(path)).learning_rate == 0.001
    assert type(configuration(Settings, {"learning_rate": 2}).learning_rate) is float


def test_an_unknown_key_is_named_with_the_known_ones(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("step: 3\n")
    message = r"run\.yaml: unknown key 'step' \(did you mean 'steps'\?\); choose from steps, "
    with pytest.raises(ValueError, match=message):
        parsed("--config", str(path))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 2.5}, r"steps is 2.5 \(float\); it must be int"),
        ({"steps": True}, r"steps is True \(bool\); it must be int"),
        ({"flip": 1}, r"flip is 1 \(int\); it must be bool"),
        ({"name": None}, r"name is None \(NoneType\); it must be str"),
        ({"learning_rate": "fast"}, r"learning_rate is 'fast' \(str\); it must be float"),
        ({"steps": 0}, "the file: steps is 0; it must be 1 or more"),
    ],
)
def test_a_wrong_value_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        configuration(Settings, values, "the file")


def test_a_wrong_type_on_the_command_line_ends_with_usage(capsys):
    with pytest.raises(SystemExit):
        parsed("--steps", "many")
    assert "argument --steps: invalid int value: 'many'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parsed("--flip", "maybe")
    assert "'maybe' is not one of true, yes, false, no" in capsys.readouterr().err


def test_help_survives_a_percent_sign(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    assert "100 % at most" in capsys.readouterr().out


def test_files_that_are_no_settings_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(IsADirectoryError, match="is a folder; expected a YAML file"):
        read_yaml(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="not list"):
        read_yaml(path)
    path.write_text("a: [1")
    with pytest.raises(ValueError, match="not a YAML file"):
        read_yaml(path)
    path.write_text("")
    assert read_yaml(path) == {}


@pytest.fixture
def interruptible():
    """Ctrl-C raises, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("becomes", [None, TypeError("not convertible"), KeyboardInterrupt()])
def test_a_stop_that_native_code_drops_or_turns_into_an_error_is_a_stop(
    capsys, number, status, becomes, interruptible
):
    @command
    def main(arguments):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            if becomes:
                raise becomes from None

    assert main([]) == status
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_command_cleans_up_and_says_so(tmp_path, capsys, number, status, interruptible):
    @command
    def work(arguments):
        with atomic_path(tmp_path / "result.txt") as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    assert work([]) == status
    assert capsys.readouterr().err == "stopped\n"
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers_may_be_numpys_and_become_int(value):
    assert type(whole("count", value)) is int and whole("count", value, 3) == 3
    check_workers(value)
    check_workers(None)


@pytest.mark.parametrize("check", [check_at_least, check_above, check_share])
@pytest.mark.parametrize("value", ["1", None, [1.0], np.ones(2), np.ones(1), True, {}])
def test_values_that_are_not_numbers_are_refused_by_name_and_type(check, value):
    kind = type(value).__name__
    with pytest.raises(ValueError, match=rf"unit is .* \({kind}\); it must be a number"):
        check("unit", value)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.int8(1), np.array(0.5)])
def test_numbers_of_every_kind_are_numbers(value):
    for check in (check_at_least, check_above, check_share):
        check("unit", value)


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, True, "2", None, float("nan")])
def test_invalid_counts_are_refused(value):
    with pytest.raises(ValueError, match=f"count is '?{value}'?; it must be .*1 or more"):
        whole("count", value)
    if value is not None:
        with pytest.raises(ValueError, match=f"workers is '?{value}'?; it must be .*1 or more"):
            check_workers(value)


def test_a_pipe_that_breaks_elsewhere_is_an_error(capfd):
    @command
    def main(arguments):
        raise BrokenPipeError("the store closed the connection")

    assert main([]) == 2
    assert capfd.readouterr().err == "error: the store closed the connection\n"


@pytest.mark.parametrize(
    ("text", "folders"),
    [("", []), (" , ", []), ("a", ["a"]), ("a b/c, s3://d/e ,", ["a b/c", "s3://d/e"])],
)
def test_folders_are_separated_by_commas(text, folders):
    assert folders_of(text) == folders


@dataclass(frozen=True)
class Strict(Settings):
    parts: tuple[str, ...] | None = None

    def __post_init__(self):
        check_types(self)


def test_values_of_dataclasses_are_of_their_types():
    made = Strict(np.int64(3), np.float32(0.5), Path("a"), np.bool_(False), ("x",))
    assert [type(value) for value in dataclasses.astuple(made)] == [int, float, str, bool, tuple]
    assert type(Strict(learning_rate=2).learning_rate) is float
    for wrong in ({"flip": "no"}, {"flip": 0}, {"steps": "3"}, {"steps": True}, {"name": None}):
        with pytest.raises(ValueError, match=f"{[*wrong][0]} is .*; it must be (bool|int|str)"):
            Strict(**wrong)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: TrainConfig(fresh="no"), "fresh"),
        (lambda: SyntheticConfig(portraits="no"), "portraits"),
        (lambda: MeshOptions(neutral="no"), "neutral"),
        (lambda: BatchSettings(crops="no"), "crops"),
        (lambda: ClipSettings(tiles="no"), "tiles"),
        (lambda: Labeling(MorphableModel.open_face(), joint="no"), "joint"),
        (lambda: FaceDetector(tiles="no"), "tiles"),
        (lambda: FaceDetector(checked="no"), "checked"),
        (lambda: photo_texture(*facing(), baked="no"), "baked"),
    ],
)
def test_text_does_not_count_as_true(make, name):
    with pytest.raises(ValueError, match=f"{name} is 'no' .str.; it must be bool"):
        make()


@pytest.mark.parametrize("options", [None, {"unit": "mm"}, "obj"])
def test_mesh_options_of_another_type_are_refused(options):
    for make in (ClipSettings, lambda mesh_options: BatchSettings(mesh_options=mesh_options)):
        with pytest.raises(ValueError, match="mesh_options is .*; it must be MeshOptions"):
            make(mesh_options=options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": 5}, "parts is 5; give a tuple of skin, eyes"),
        ({"parts": ()}, r"parts is \(\); give a tuple of skin, eyes"),
        ({"parts": [1]}, "unknown part '1'; choose from skin, eyes"),
        ({"parts": [["skin"]]}, "unknown part .*; choose from skin, eyes"),
        ({"unit": ["m"]}, "unknown unit .*; choose from mm, cm, m"),
        ({"unit": None}, "unknown unit 'None'; choose from mm, cm, m"),
    ],
)
def test_parts_and_units_of_another_type_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MeshOptions(**options)


def facing() -> tuple[MorphableModel, np.ndarray, np.ndarray]:
    model = MorphableModel.open_face()
    return model, np.zeros((400, 400, 3), np.uint8), model.vertices() + 200

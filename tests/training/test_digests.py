from pathlib import Path

import pytest

from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import (
    INPUTS,
    check_inputs,
    data_digests,
    group_facts,
    short_ends,
)


def test_a_run_continues_only_with_the_data_that_it_began_with(tmp_path):
    data, run = tmp_path / "records", tmp_path / "run"
    data.mkdir(), run.mkdir()
    (data / "manifest.json").write_text("{}")
    config = TrainConfig(data=str(data), run=str(run))
    check_inputs(run, config)
    check_inputs(run, config)
    (data / "manifest.json").write_text('{"count": 2}')
    with pytest.raises(ValueError, match="run holds a run whose data had other contents"):
        check_inputs(run, config)
    (run / INPUTS).write_text("[")
    with pytest.raises(ValueError, match=f"{INPUTS}: not the digests"):
        check_inputs(run, config)


def test_a_run_continues_only_with_the_face_model_that_it_began_with(tmp_path):
    """The file's name is a setting of the run, which its content is not."""
    path, run = tmp_path / "mine.npz", tmp_path / "run"
    path.write_bytes(b"one")
    run.mkdir()
    (run / INPUTS).write_text('{"start": "", "data": {}}')  # of a version that did not record it
    config = TrainConfig(run=str(run), start="", face_model=str(path))
    check_inputs(run, config)
    check_inputs(run, config)
    path.write_bytes(b"two")
    with pytest.raises(ValueError, match="run holds a run whose face_model had other contents"):
        check_inputs(run, config)


def test_processes_with_the_same_data_elsewhere_are_accepted(tmp_path):
    """Folders with the same name on two machines; another seed or other contents differ."""
    facts = []
    for disk, content in (("a", "{}"), ("b", "{}"), ("c", '{"count": 2}')):
        data = tmp_path / disk / "records"
        data.mkdir(parents=True)
        (data / "manifest.json").write_text(content)
        facts.append(group_facts(TrainConfig(data=str(data), run=disk)))
    assert facts[0] == facts[1]
    assert [name for name in facts[0] if facts[0][name] != facts[2][name]] == ["data"]
    other = group_facts(TrainConfig(data=str(data), seed=1))
    assert [name for name in other if other[name] != facts[2][name]] == ["settings"]


def write_manifests(home, *names, content="{}") -> str:
    """Folders that stand for face records, with commas between them."""
    for name in names:
        (home / name).mkdir(parents=True, exist_ok=True)
        (home / name / "manifest.json").write_text(content)
    return ", ".join(str(home / name) for name in names)


def test_each_of_several_folders_of_one_name_is_noticed(tmp_path):
    data = write_manifests(tmp_path, "a/records", "b/records")
    config = TrainConfig(data=data, run=str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    check_inputs(tmp_path / "run", config)
    assert list(data_digests(data)) == ["a/records", "b/records"]
    elsewhere = write_manifests(tmp_path / "disk", "a/records", "b/records")
    assert group_facts(config) == group_facts(TrainConfig(data=elsewhere))
    write_manifests(tmp_path, "a/records", content='{"count": 2}')
    with pytest.raises(ValueError, match="whose data had other contents"):
        check_inputs(tmp_path / "run", config)


@pytest.mark.parametrize(
    ("paths", "ends"),
    [
        ([], []),
        (["a/b"], ["b"]),
        (["b", "a/b"], ["b", "a/b"]),
        (["x/a/b", "y/a/b", "c"], ["x/a/b", "y/a/b", "c"]),
        (["a", "a"], ["a", "a"]),
    ],
)
def test_paths_are_distinguished_by_their_ends(paths, ends):
    assert short_ends([Path(path) for path in paths]) == ends


def test_a_missing_start_is_reported_to_all_processes(tmp_path):
    facts = group_facts(TrainConfig(start="no-such-preset"))
    assert set(facts) == {"problem"} and "no-such-preset" in facts["problem"]

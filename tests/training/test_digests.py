import pytest

from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import INPUTS, check_inputs, group_facts


def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path):
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


def test_processes_with_the_same_data_elsewhere_are_alike(tmp_path):
    """Folders of one name on two machines; another seed or other contents differ."""
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


def test_a_start_that_is_missing_is_a_problem_that_all_are_told(tmp_path):
    facts = group_facts(TrainConfig(start="no-such-preset"))
    assert set(facts) == {"problem"} and "no-such-preset" in facts["problem"]

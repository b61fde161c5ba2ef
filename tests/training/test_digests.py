import pytest

from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import INPUTS, check_inputs


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

"""The example of docs/scale.md that can run here."""

import re
from pathlib import Path

import pytest

from keras_scnn.folders.batch import BatchSettings, reconstruct_batch
from keras_scnn.io import write_image

ray = pytest.importorskip("ray", reason="extra 'ray' is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="extra 'batch' is not installed")
data = pytest.importorskip("skimage.data", reason="extra 'test' is not installed")

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data, of its own defaults
def test_the_example_for_ray_gives_the_faces(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    photo = tmp_path / "photos" / "astronaut.png"
    write_image(photo, data.astronaut()[:300])
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no photo")
    text = (ROOT / "docs" / "scale.md").read_text()
    (code,) = re.findall(r"```python\n(import ray\n.*?)```", text, re.DOTALL)
    assert code.count("s3:/") == 2
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init("local", num_cpus=1, log_to_driver=False, include_dashboard=False)
    try:
        exec(compile(code.replace("s3:/", str(tmp_path)), "scale.md", "exec"), {})
    finally:
        ray.shutdown()
    rows = {row["photo"]: row for row in pq.read_table(tmp_path / "results" / "faces").to_pylist()}
    assert set(rows) == {str(photo), str(tmp_path / "photos" / "broken.jpg")}
    assert "readable image" in rows[str(tmp_path / "photos" / "broken.jpg")]["failed"]
    import pyarrow as pa

    (expected,) = reconstruct_batch(pa.table({"path": [str(photo)]}), BatchSettings()).to_pylist()
    assert rows[str(photo)] == expected and expected["failed"] is None

"""The examples of docs/distributed, which are not run: their form, and the options they use."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from keras_scnn.training.config import TrainConfig

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "distributed"
# Of the custom resource RayJob, ray.io/v1: github.com/ray-project/kuberay, ray-operator/apis.
JOB = {"entrypoint", "shutdownAfterJobFinishes", "rayClusterSpec"}
GROUP = {"rayStartParams", "template"}
WORKERS = GROUP | {"groupName", "replicas", "minReplicas", "maxReplicas"}


@pytest.mark.parametrize("name", ["train.sbatch", "rayjob.yaml"])
def test_the_options_of_training_are_there(name):
    known = set(TrainConfig.__dataclass_fields__) | {"config", "cpus", "gpus", "restarts"}
    text = (EXAMPLES / name).read_text()
    words = text[text.index("--config") :].split("scontrol")[0]
    options = re.findall(r"--([a-z-]+)", words)
    assert len(options) > 5
    assert {option.replace("-", "_") for option in options} <= known


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", EXAMPLES / "train.sbatch"], check=True)


def test_the_rayjob_has_the_fields_of_its_kind():
    job = yaml.safe_load((EXAMPLES / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    assert set(spec) == JOB
    assert set(cluster) == {"headGroupSpec", "workerGroupSpecs"}
    assert set(cluster["headGroupSpec"]) == GROUP and set(workers) == WORKERS
    for pod in (cluster["headGroupSpec"]["template"], workers["template"]):
        (container,) = pod["spec"]["containers"]
        assert {"name", "image"} < set(container)
        mounted = {one["name"] for one in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    hosts = re.search(r"--hosts (\d+)", spec["entrypoint"])
    assert hosts and int(hosts[1]) == workers["replicas"]

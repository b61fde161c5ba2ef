"""The examples of docs/serving_examples, which are not run: form, options, and tensors."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from keras_scnn.export.exported_model import output_table
from keras_scnn.models.presets import read_preset
from keras_scnn.serve import parse

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "serving_examples"
# Required fields by kind: Kubernetes' API reference (apps/v1, v1), KServe's (v1beta1, custom
# predictor), and the Compose specification.
POD = {"name", "image"}
# Fields of Triton's model_config.proto that the example may use: name, number, type, message.
TRITON = {
    "Shape": [("shape", 1, "int64*")],
    "Tensor": [("name", 1, "string"), ("data_type", 2, "string"), ("dims", 4, "int64*"),
               ("reshape", 5, "Shape")],
    "Batching": [("max_queue_delay_microseconds", 2, "int64")],
    "Group": [("count", 2, "int64"), ("kind", 4, "string")],
    "Config": [("name", 1, "string"), ("platform", 2, "string"), ("max_batch_size", 4, "int64"),
               ("input", 5, "Tensor*"), ("output", 6, "Tensor*"), ("instance_group", 7, "Group*"),
               ("dynamic_batching", 11, "Batching")],
}  # fmt: skip


def documents(name: str) -> list[dict]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


def triton_config():
    """config.pbtxt, read by protobuf's own reader of text, which refuses unknown fields."""
    # Enumerations are read as strings, for which their names need quotes.
    text = re.sub(r": ((?:TYPE|KIND)_\w+)", r': "\1"', (EXAMPLES / "config.pbtxt").read_text())
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", package="t", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for message, fields in TRITON.items():
        added = file.message_type.add(name=message)
        for name, number, kind in fields:
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            one = added.field.add(name=name, number=number, label=label)
            if (base := kind.rstrip("*")) in TRITON:
                one.type, one.type_name = field.TYPE_MESSAGE, f".t.{base}"
            else:
                one.type = {"int64": field.TYPE_INT64, "string": field.TYPE_STRING}[base]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    config = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Config"))()
    return text_format.Parse(text, config)


def tensors(listed) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of a row of a tensor of the network."""
    return {
        one.name: (one.data_type, tuple(one.reshape.shape if one.HasField("reshape") else one.dims))
        for one in listed
    }


def built(kind: str, value):
    """A document as an object of Kubernetes' and KServe's clients, which their schemas generate.

    An unknown field is a KeyError, a required one that is missing a ValueError.
    """
    kubernetes, kserve = pytest.importorskip("kubernetes.client"), pytest.importorskip("kserve")
    if inner := re.fullmatch(r"list\[(\w+)\]", kind):
        return [built(inner[1], one) for one in value]
    model = getattr(kserve, kind, None) or getattr(kubernetes, kind, None)
    if model is None:  # a string, a number, a table of strings
        return value
    names = {name: attribute for attribute, name in model.attribute_map.items()}
    fields = {names[key]: (model.openapi_types[names[key]], one) for key, one in value.items()}
    return model(**{name: built(*field) for name, field in fields.items()})


def test_each_field_is_one_of_the_schemas():
    deployment, service = documents("kubernetes.yaml")
    built("V1Deployment", deployment)
    built("V1Service", service)
    (inference,) = documents("inference_service.yaml")
    built("V1beta1InferenceService", inference)
    with pytest.raises(KeyError, match="replica"):
        built("V1Deployment", deployment | {"spec": deployment["spec"] | {"replica": 1}})
    del deployment["spec"]["selector"]
    with pytest.raises(ValueError, match="selector"):
        built("V1Deployment", deployment)


def check_command(words: list[str]) -> int:
    """The port of a server's command, whose options must be known."""
    assert words[:3] == ["python", "-m", "keras_scnn.serve"]
    options = parse(words[3:])
    assert options.preset == "mobile" and options.host == "0.0.0.0"
    return options.port


def check_container(container: dict, probed: set) -> None:
    assert set(container) >= POD
    port = check_command(container["args"])
    (published,) = container["ports"]
    assert published["containerPort"] == port
    for key in probed:
        probe = container[key]["httpGet"]
        assert probe["path"].startswith("/v2/health/")
        assert probe["port"] in (port, published.get("name"))


def test_each_says_that_it_was_not_run():
    names = {path.name for path in EXAMPLES.iterdir()}
    assert names == {
        "Dockerfile", "compose.yaml", "config.pbtxt", "inference_service.yaml", "kubernetes.yaml"
    }  # fmt: skip
    for name in names:
        assert re.search(r"not run|no image was built", (EXAMPLES / name).read_text()), name


def test_the_deployment_and_its_service():
    deployment, service = documents("kubernetes.yaml")
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    spec = deployment["spec"]
    assert set(spec) == {"replicas", "selector", "template"}
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"] == {"matchLabels": labels}
    (container,) = spec["template"]["spec"]["containers"]
    check_container(container, {"readinessProbe", "livenessProbe"})
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > 30  # of open requests
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    (port,) = service["spec"]["ports"]
    assert service["spec"]["selector"] == labels
    assert port["targetPort"] == container["ports"][0]["name"]


def test_the_inference_service():
    (service,) = documents("inference_service.yaml")
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["kind"] == "InferenceService" and set(service["spec"]) == {"predictor"}
    predictor = service["spec"]["predictor"]
    assert set(predictor) == {"minReplicas", "maxReplicas", "containers"}
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"  # KServe's name for a custom predictor
    check_container(container, {"readinessProbe"})
    named = parse(container["args"][3:]).name
    assert named == service["metadata"]["name"]


def test_the_compose_file_builds_the_dockerfile_and_opens_its_port():
    (compose,) = documents("compose.yaml")
    ((_, service),) = compose["services"].items()
    build = service["build"]
    root = (EXAMPLES / build["context"]).resolve()
    assert (root / "setup.cfg").is_file() and (root / build["dockerfile"]).is_file()
    (port,) = service["ports"]
    assert port == "127.0.0.1:8501:8501"


def test_the_dockerfile_serves_what_its_port_says():
    text = (EXAMPLES / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]
    kinds = [kind for kind, _ in steps]
    assert kinds[0] == "FROM" and kinds[-1] == "CMD"
    known = "FROM RUN WORKDIR COPY ENV USER EXPOSE HEALTHCHECK CMD"
    assert set(kinds) <= set(known.split())
    last = dict(steps)
    assert check_command(yaml.safe_load(last["CMD"])) == int(last["EXPOSE"])
    assert last["USER"] != "root" and f":{last['EXPOSE']}/v2/health/ready" in last["HEALTHCHECK"]
    (made,) = (shlex.split(text)[-1] for kind, text in steps if "ensure_network" in text)
    compile(made, "Dockerfile", "exec")


def test_tritons_tensors_are_those_of_the_preset():
    config, preset = triton_config(), read_preset("mobile")
    assert (config.name, config.platform) == ("mobile", "onnxruntime_onnx")
    size = preset.input_size
    assert tensors(config.input) == {"image": ("TYPE_UINT8", (size, size, 3))}
    table = {name: ("TYPE_FP32", one.shape) for name, one in output_table(preset, False).items()}
    assert tensors(config.output) == table


@pytest.mark.integration
def test_tritons_tensors_are_those_of_the_exported_file(tmp_path):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from keras_scnn.export.onnx import write_onnx
    from keras_scnn.models import load_preset

    write_onnx(tmp_path / "model.onnx", load_preset("mobile"), name="mobile")
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    kinds = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}
    config = triton_config()
    sides = (config.input, session.get_inputs()), (config.output, session.get_outputs())
    for listed, named in sides:
        shapes = {one.name: (kinds[one.type], tuple(one.shape[1:])) for one in named}
        assert tensors(listed) == shapes
        assert all(isinstance(one.shape[0], str) for one in named)  # a free batch

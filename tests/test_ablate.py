import dataclasses
import functools
import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from tiny_encoder import STAND_IN

from keras_scnn.ablate import main
from keras_scnn.evaluation.plots import plot_variants
from keras_scnn.training.ablation import (
    CONTRAST,
    IDENTITY,
    MEASURES,
    VARIANTS,
    ablate,
    mean_constant,
    settings_of,
    summary,
    table,
)
from keras_scnn.training.config import TrainConfig

pytest.importorskip("tensorflow")

TINY = ["--people", "5", "--photos", "5", "--held-out", "3", "--crop-size", "32", "--steps", "1"]
TINY += ["--batch-size", "2", "--feature-size", "4", "--warmup", "1", "--minutes", "0"]
TINY += ["--encoder", STAND_IN, "--start", ""]


@pytest.mark.integration
def test_variants_are_trained_and_compared(
    tmp_path, capsys, tiny_encoder, few_resamples, eager_steps
):
    """Two of the four, to save time."""
    out = tmp_path / "ablation"
    places = ["--out", str(out), "--cache", str(tmp_path), "--seeds", "3"]
    places += ["--variants", "regression,both"]
    assert main([*TINY, *places]) == 0
    written = json.loads((out / "ablation.json").read_text())
    results_of = written["found"]
    assert list(results_of) == ["regression", "both"]
    for variant, measures in results_of.items():
        assert set(measures) == set(MEASURES)
        results = json.loads((out / f"{variant}-3" / "results.json").read_text())
        for path, measure in measures.items():  # with one seed they are those of its run
            value = functools.reduce(lambda part, name: part[name], path.split("."), results)
            ends = results["intervals"][path]
            assert [measure["mean"], measure["low"], measure["high"]] == pytest.approx(
                [value, *ends], nan_ok=True
            )
            assert measure["spread"] == 0
        constant = json.loads((out / f"{variant}-3" / "constant.json").read_text())
        assert written["constant"] == {path: constant[path] for path in MEASURES}
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith("  training mean, chance") for line in lines)
    (row,) = (line for line in lines if line.startswith("verification by feature, %"))
    assert row.endswith("  50.00")
    assert (out / "ablation.png").stat().st_size > 1000


def test_each_variant_switches_off_its_losses_and_nothing_else():
    weights = dict.fromkeys(CONTRAST + IDENTITY, 0.5)
    config = TrainConfig(batches="groups", steps=7, **weights)
    assert list(VARIANTS) == ["regression", "contrast", "identity", "both"]
    for variant, has in zip(VARIANTS, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        result = settings_of(config, Path("runs"), variant, 5)
        for names, there in zip((CONTRAST, IDENTITY), has, strict=True):
            assert {getattr(result, name) for name in names} == {0.5 * there}
        assert (result.steps, result.seed, result.run) == (7, 5, str(Path("runs") / f"{variant}-5"))


@pytest.mark.parametrize(
    ("options", "variants"),
    [
        (["--recipe", "landmarks"], "regression and contrast"),
        (["--recipe", "expressions"], "regression and contrast"),
        (["--feature-weight", "0"], "regression and identity"),
        (["--feature-weight", "0", "--variants", "both,contrast"], "both and contrast"),
    ],
)
def test_variants_without_a_difference_are_refused_before_training(
    tmp_path, monkeypatch, capsys, options, variants
):
    monkeypatch.setattr("keras_scnn.training.run.train", raise_stopped)
    assert main([*options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert f"variants {variants} have the same settings, since " in error
    assert "_weight" in error and not (tmp_path / "out").exists()


def test_a_summary_is_the_mean_over_seeds_with_their_spread():
    results = [
        {"shape_ratio": 0.6, "intervals": {"shape_ratio": (0.5, 0.7)}},
        {"shape_ratio": 0.8, "intervals": {"shape_ratio": (0.6, 1.0)}},
    ]
    (measure,) = summary(results).values()
    values = (measure.mean, measure.low, measure.high, measure.spread)
    assert values == pytest.approx((0.7, 0.55, 0.85, 0.2))
    lines = table({"both": summary(results)}, {"shape_ratio": 1.0}).splitlines()
    (row,) = [line for line in lines if line.startswith("distance within")]
    assert row.endswith("0.70 [0.55, 0.85] ±0.10  1.00")
    assert len(lines) == 2  # and the head: what no variant has is left out


def test_a_chance_level_without_a_measure_is_no_row_of_the_table():
    lines = table({"both": {}}, {"shape_verification.accuracy_percent": 50.0}).splitlines()
    assert len(lines) == 1


def test_the_constant_of_an_ablation_is_the_mean_over_its_runs():
    """Rendered people differ by seed; a measure that one run lacks is left out."""
    runs = [{"shape_ratio": 1.0, "pose.mean_degrees": 20.0}, {"pose.mean_degrees": 25.0, "x": 1.0}]
    assert mean_constant(runs, {"pose.mean_degrees", "shape_ratio"}) == {"pose.mean_degrees": 22.5}
    assert mean_constant(runs, {"shape_ratio"}) == {}


def test_the_picture_has_a_dashed_line_where_a_constant_prediction_is(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    names = ("shape.relative", "shape_ratio")
    variants = {"both": {name: {"mean": 0.5, "low": 0.4, "high": 0.6} for name in names}}
    plot_variants(variants, MEASURES, tmp_path / "a.png", {"shape_ratio": 1.25})
    dashed = [
        [line.get_ydata() for line in axis.lines if line.get_linestyle() == "--"]
        for axis in drawn[0].axes
    ]
    assert (dashed[0], *map(list, dashed[1])) == ([], [1.25, 1.25])
    assert "dashed: training mean, chance" in drawn[0].get_suptitle()


@dataclasses.dataclass
class Found:
    shape_ratio: float
    intervals: dict


def test_numbers_of_an_ablation_are_strict_json(tmp_path, monkeypatch):
    found = Found(0.5, {})  # no interval was measured
    monkeypatch.setattr("keras_scnn.training.run.train", lambda config: found)
    monkeypatch.setattr(
        "keras_scnn.evaluation.plots.plot_variants",
        lambda variants, titles, path, constant: path.touch(),
    )
    ablate(TrainConfig(), tmp_path, (0,), ("both",))
    odd = []
    written = json.loads((tmp_path / "ablation.json").read_text(), parse_constant=odd.append)
    assert odd == []
    measure = {"mean": 0.5, "low": None, "high": None, "spread": 0}
    assert written["found"] == {"both": {"shape_ratio": measure}}


def test_an_earlier_result_stays_until_there_is_another(tmp_path, monkeypatch):
    for name in ("ablation.json", "ablation.png"):
        (tmp_path / name).write_text("earlier")
    monkeypatch.setattr("keras_scnn.training.run.train", raise_stopped)
    hosts = TrainConfig(hosts=2, coordinator="localhost:1234", minutes=0)
    for config, error in ((hosts, ValueError), (TrainConfig(), KeyboardInterrupt)):
        with pytest.raises(error):
            ablate(config, tmp_path, (0,), ("both",))
        assert {path.read_text() for path in tmp_path.iterdir()} == {"earlier"}


def raise_stopped(config):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "a"], "--seeds is 'a'"),
        (["--seeds", "0,4294967296"], "seed is 4294967296; it must be 4294967295 at most"),
        (["--seeds", "0,-1"], "--seeds is '0,-1'; it must be different numbers, such as 0,1"),
        (["--seeds", "0,0"], "--seeds is '0,0'"),
        (["--seeds", ""], "--seeds is ''"),
        (["--variants", "both,both"], "--variants is 'both,both'; it names a variant twice"),
        (["--variants", "both, both"], "it names a variant twice"),
        (["--variants", "both,none"], "--variants has 'none'; choose from regression,contrast"),
        (["--recipe", "robust", "--config", "x.yaml"], "give one of"),
        (["--recipe", "none"], "no recipe 'none'"),
        (["--run", "x"], "--run is for one run of train; use --out"),
        (["--seed", "7"], "--seed is for one run of train; use --seeds"),
    ],
)
def test_wrong_options_are_named(options, message, capsys):
    assert main(options) == 2
    assert message in capsys.readouterr().err

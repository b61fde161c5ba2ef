"""Measure a trained network: ``keras-scnn evaluate RUN_OR_PRESET --data DIR_OR_FILE``.

The kind of data determines what is measured:

- a folder of AFLW2000-3D (.jpg and .mat pairs, optionally with the benchmark's boxes in
  protocol.csv): landmark errors by yaw, pose, and with --shape-basis the neutral shape;
- a folder of face records, such as the synthetic ones of a training run: the above and identity;
- a people folder, one sub-folder per person: verification and retrieval;
- a pairs file in LFW's format, with its photos in --photos: verification.

Some measures need more than the photos, and are selected by an option (docs/yardsticks.md):

- --pairs FILE.csv[,FILE.csv ...]: same person or not, by geometry and by feature, on the pairs
  first,second,same,fold of photos in --data, with folds by person;
- --shape-truth FILE.npz: neutral shape against the fit to all other photos of the person, of a
  people folder; --fit-truth makes the file; --openings FILE.csv: eyes and mouth on 300-W;
- --points FILE.npz: manually annotated points of one half of the face, as for CFP's profiles;
- --gaze: where the eyes look, against the irises in the photos of a people folder.

Every number comes with a 95 % bootstrap interval. --calibrate stores the probability that two
photos show the same person, as a function of distance, in the preset for ``keras-scnn compare``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from keras_scnn.protocols.options import add_aflw2000_options, add_yardstick_options
from keras_scnn.settings import CommandParser, check_at_least, command
from keras_scnn.storage.outputs import check_out

RESAMPLES = 1000


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = CommandParser("evaluate", __doc__)
    add = parser.add_argument
    add("preset", metavar="RUN_OR_PRESET", help="preset name, folder or URL, or a run folder")
    add("--data", required=True, type=Path, metavar="DIR_OR_FILE", help="see above")
    add("--out", type=Path, default=Path("evaluation"), metavar="DIR", help="results (evaluation)")
    add("--people", action="store_true", help="always treat --data as a people folder")
    add("--photos", type=Path, metavar="DIR", help="photos of a pairs file: NAME/NAME_0001.jpg")
    add_aflw2000_options(parser)
    store = "fit the probability of the same person, and store it in RUN_OR_PRESET, a folder"
    add("--calibrate", action="store_true", help=store)
    add("--resamples", type=int, default=RESAMPLES, help=f"bootstrap draws ({RESAMPLES}); 0: none")
    add("--seed", type=int, default=0, help="seed of the bootstrap (0)")
    add_yardstick_options(parser)
    args = parser.parse_args(arguments)
    parser.check(args, check_at_least, "resamples", "seed", "annotation_first_pixel")
    parser.check(args, check_at_least, "last", low=1)
    return args


@command
def main(arguments: list[str] | None = None) -> None:
    """Run the command; ``arguments`` as on the command line."""
    args = parse(arguments)
    from keras_scnn.models.presets import preset_folder
    from keras_scnn.protocols.choices import chosen_yardstick

    check_out(args.out)
    preset_folder(args.preset)
    if (yardstick := chosen_yardstick(args)) is not None:
        measure_yardstick(yardstick, args)
    else:
        measure_data(args)


def measure_data(args: argparse.Namespace) -> None:
    """Measure by the protocol for this kind of data, and print and write the results."""
    from keras_scnn.models.presets import write_metadata
    from keras_scnn.protocols import evaluation
    from keras_scnn.protocols.choices import OWN_OPTIONS
    from keras_scnn.protocols.result_names import names_of, replaceable_result

    kind = evaluation.checked_kind(args.data, args.people, vars(args))
    if args.calibrate:
        evaluation.check_calibrate(args.preset, args.data, kind)
    elsewhere = ("preset", "data", "out", "calibrate", *OWN_OPTIONS)
    options = {k: v for k, v in vars(args).items() if k not in elsewhere}
    stem, inputs = replaceable_result(args, kind=kind)
    name, data = names_of(args.preset, args.data)
    results = evaluation.evaluate_preset(args.preset, args.data, keep=args.out, **options)
    print(evaluation.write_results(results, args.out, stem, f"{name} on {data}", args.data, inputs))
    if args.calibrate:
        calibration = evaluation.calibration_of(results) | {"data": data}
        write_metadata(args.preset, "verification", calibration)
    print(f"written: {args.out / stem}.json, .txt, .png and -curves.png")
    report_unmeasured(results)


def measure_yardstick(name: str, args: argparse.Namespace) -> None:
    """Measure by the protocol that an option selects, and print and write the results."""
    from keras_scnn.protocols.choices import measure_yardstick
    from keras_scnn.protocols.result_names import replaceable_result
    from keras_scnn.protocols.yardsticks import write_yardstick

    stem, inputs = replaceable_result(args, name)
    result = measure_yardstick(name, args)
    print(write_yardstick(result, args.out, stem, inputs))
    print(f"written: {args.out / stem}.json and .txt")
    report_unmeasured(result)


def report_unmeasured(results: object) -> None:
    """List the photos that were not measured, and the files passed over, on stderr."""
    from keras_scnn.photos.files import describe_passed_over

    for reason in getattr(results, "left_out", ()):
        print(f"left out: {reason}", file=sys.stderr)
    if files := getattr(results, "passed_over", ()):
        print(describe_passed_over(files), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""The command line: ``keras-scnn COMMAND``, or ``python -m keras_scnn COMMAND``.

A command's module is imported only when the command runs, and heavy packages only after its
arguments have been validated.
"""

from __future__ import annotations

import importlib
import sys
import textwrap

from keras_scnn import __version__
from keras_scnn.settings import FAILURE, CommandParser, command, did_you_mean

COMMANDS = {
    "reconstruct": ("keras_scnn.reconstruct", "photos to textured 3D faces"),
    "compare": ("keras_scnn.compare", "whether two photos show the same person"),
    "convert": ("keras_scnn.convert", "reconstructions as FLAME, BFM, ICT or GNM parameters"),
    "train": ("keras_scnn.train", "train a Siamese network, on rendered people by default"),
    "evaluate": ("keras_scnn.evaluate", "measure a network: landmarks, pose, shape, identity"),
    "prepare": ("keras_scnn.prepare", "turn a data set into face records"),
    "ablate": ("keras_scnn.ablate", "train with and without the losses that compare people"),
    "release": ("keras_scnn.training.release", "make a preset from its recipe"),
    "export": ("keras_scnn.export.__main__", "TFLite, ONNX and SavedModel files, verified"),
    "serve": ("keras_scnn.serve", "a preset behind HTTP"),
    "demo": ("keras_scnn.export.demo", "a preset in the browser"),
    "presets": ("keras_scnn.__main__", "list the package's presets"),
}
WIDTH = 100


def usage() -> str:
    """The text that ``keras-scnn --help`` prints."""
    lines = [f"  {name:<13}{text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: keras-scnn COMMAND ...",
            "",
            "One photo to a 3D face with a shape predicted for that person.",
            "",
            "commands:",
            *lines,
            "",
            "keras-scnn COMMAND --help describes one; keras-scnn --version prints the version",
        ]
    )


@command
def list_presets(arguments: list[str] | None = None) -> None:
    """Print the name, size, accuracy and license of each preset in the package."""
    parser = CommandParser("presets", "List the package's presets: size, accuracy, license.")
    parser.parse_args(arguments)
    from keras_scnn.models.preset_summaries import preset_summaries

    for preset in preset_summaries():
        print(f"{preset.name}: {preset.encoder}, {preset.input_size} px")
        rows = [f"{preset.parameters / 1e6:.2f} million parameters, {preset.bytes / 1e6:.1f} MB"]
        if preset.shared:
            rows[0] += f", beside the weights of {', '.join(preset.shared)}"
        for measure, result in preset.results.items():
            rows.append(f"{measure}: {result['value']} {result['unit']} ({result['protocol']})")
        rows.append(f"license: {preset.license}")
        if preset.needs:
            rows.append(f"needs: {preset.needs}")
        for row in rows:
            print(textwrap.fill(row, WIDTH, initial_indent="  ", subsequent_indent="    "))


@command
def _answer(words: list[str] | None) -> int:
    """Print the help or the version, or an error for an unknown command."""
    (name,) = words or ["--help"]
    if name in ("--help", "-h"):
        print(usage())
    elif name == "--version":
        print(__version__)
    else:
        known = ", ".join(COMMANDS)
        similar = did_you_mean(name, COMMANDS)
        print(f"error: no command '{name}'{similar}; choose from {known}", file=sys.stderr)
        return FAILURE
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; ``arguments`` as on the command line, starting with the command's name."""
    name, *others = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name == "presets":
        return list_presets(others)
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name][0]).main(others)
    return _answer([name])


if __name__ == "__main__":
    sys.exit(main())

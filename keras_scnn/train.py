"""Train a Siamese network: ``keras-scnn train``, or ``python -m keras_scnn.train``.

Without an argument it renders synthetic identity pairs from the embedded face model, trains on
them for a few minutes, and measures the network on people that it never saw. The run folder holds
settings, checkpoints, TensorBoard logs, results and plots. A run can be resumed, and its folder is
a preset for ``keras_scnn.evaluate`` and ``keras_scnn.reconstruct``.

Settings whose help begins with "pairs:", "groups:" or "matching:" are for --batches of these kinds,
"synthetic:" for rendered people (without --data), "adamw:" for --optimizer adamw.
"""

from __future__ import annotations

import sys
from pathlib import Path

from keras_scnn.models.backend import start_keras
from keras_scnn.settings import SETTINGS, CommandParser, command, from_options
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.recipes import parse_settings


def parse(arguments: list[str] | None) -> TrainConfig:
    """The settings of a command line.

    Raises:
        FileNotFoundError, ValueError: a configuration file is missing or wrong.
    """
    parser = CommandParser("train", __doc__)
    parser.add_argument("--resume", metavar="RUN", help="run folder to resume, with its settings")
    options = parse_settings(parser, arguments, "resume")
    if options.resume:
        if Path(getattr(options, "run", options.resume)) != Path(options.resume):
            raise ValueError(f"--resume continues the run in {options.resume}; leave out --run")
        if not (Path(options.resume) / SETTINGS).is_file():
            raise FileNotFoundError(
                f"{options.resume}: no run there (no {SETTINGS}); --resume takes a run folder"
            )
        options.config, options.run = str(Path(options.resume) / SETTINGS), options.resume
    return from_options(TrainConfig, options)


@command
def main(arguments: list[str] | None = None) -> None:
    """The command; ``arguments`` as on the command line."""
    config = parse(arguments)
    start_keras()
    from keras_scnn.training.run import train

    train(config)


if __name__ == "__main__":
    sys.exit(main())

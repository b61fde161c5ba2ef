"""Shared code of all commands: parsing, running and failing; types and ranges of settings."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import functools
import io
import math
import numbers
import os
import re
import select
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar

import numpy as np

from keras_scnn.storage.guard import existing_file
from keras_scnn.storage.remote import place
from keras_scnn.storage.text import read_plain_yaml


class Dataclass(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=Dataclass)
SETTINGS = "config.yaml"
DEFAULT_PRESET = "mobile"  # of reconstruct, compare, serve and demo
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
FAILURE = 2  # exit status of a command that failed, as in argparse
UNREAD = 141  # exit status if the output's reader is gone: the shells' status for SIGPIPE
NUMBER = re.compile(r"-\d*\.?\d*(?:e[-+]?\d+)?")  # a negative number on a command line
# Errors caused by the user's input or machine; anything else is a bug and keeps its traceback.
EXPECTED = (ImportError, OSError, RuntimeError, ValueError)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean 'x'?)' with the most similar known word; '' if none is similar."""
    similar = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{similar[0]}'?)" if similar else ""


def flag(name: str) -> str:
    """The option for a parsed name: ``--bfm-info`` for ``bfm_info``."""
    return f"--{name.replace('_', '-')}"


def wrong_type(name: str, value: object, expected: str) -> ValueError:
    """The error for an argument of the wrong type; ``expected`` describes the right one."""
    text = repr(value).partition("\n")[0][:80]  # one line, also of an array
    return ValueError(f"{name} is {text} ({type(value).__name__}); it must be {expected}")


def check_number(name: str, value: float) -> None:
    """Raise a ValueError unless the value is a number: not a text, None or a list."""
    has_axes = hasattr(value, "ndim") and value.ndim > 0  # NumPy's scalars have none
    if has_axes or isinstance(value, bool) or not hasattr(value, "__float__"):
        raise wrong_type(name, value, "a number")


def check_at_least(name: str, value: float, low: float = 0.0) -> None:
    """Raise a ValueError unless the value is a finite number of at least ``low``."""
    check_number(name, value)
    if not low <= value < math.inf:
        raise ValueError(f"{name} is {value}; it must be {low:g} or more, and finite")


def check_above(name: str, value: float) -> None:
    """Raise a ValueError unless the value is a finite number above 0."""
    check_number(name, value)
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be above 0, and finite")


def check_share(name: str, value: float) -> None:
    """Raise a ValueError unless the value is a number from 0 to 1, inclusive."""
    check_number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must lie in 0 to 1")


def check_score(name: str, value: float) -> None:
    """Raise a ValueError unless the value is a number between 0 and 1, exclusive."""
    check_number(name, value)
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value:g}; it must lie between 0 and 1, both excluded")


def whole(name: str, value: int, low: int = 1) -> int:
    """A whole number, possibly NumPy's, as int.

    Raises:
        ValueError: it is not a whole number, or below ``low``.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value!r}; it must be a whole number, {low} or more")
    check_at_least(name, value, low)
    return int(value)


def check_workers(workers: int | None) -> None:
    """Raise a ValueError for a number of processes below 1; None stands for one per core."""
    if workers is not None:
        whole("workers", workers)


def words_of(text: str) -> list[str]:
    """The items of a comma-separated option, without surrounding spaces."""
    return [word.strip() for word in text.split(",")]


def folders_of(text: str) -> list[str]:
    """The files, folders or URLs of a comma-separated setting."""
    return [word for word in words_of(text) if word]


def _local_path(text: str) -> Path:
    """Parse an option of type ``Path``; a URL is refused, since it would become a folder 's3:'."""
    try:
        path = place(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(path, Path):
        raise argparse.ArgumentTypeError(f"{text} is a URL; give a local path")
    return path


class CommandParser(argparse.ArgumentParser):
    """The parser of one command: no abbreviated options, and suggestions for misspelled ones.

    Args:
        command: its name: ``keras-scnn NAME``.
        description: what it does; its line breaks are kept.
    """

    def __init__(self, command: str, description: str):
        super().__init__(
            f"keras-scnn {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.register("type", Path, _local_path)

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """As in argparse, but an unknown option is reported before a missing one."""
        given = sys.argv[1:] if args is None else list(args)
        known = list(self._option_string_actions)
        for word in given[: given.index("--")] if "--" in given else given:
            name = word.partition("=")[0]
            if re.match("--.", name) and name not in known:
                self.error(f"unknown option {name}{did_you_mean(name, known)}")
            if re.match("-[^-]", word) and not NUMBER.fullmatch(word) and word not in known:
                self.error(f"unknown option {word}; for a file of that name, give ./{word}")
        self._check_empty(given)
        return super().parse_args(given, namespace)

    def _check_empty(self, given: list[str]) -> None:
        """Reject '', as from an unset shell variable, which ``Path`` would take for '.'."""
        for before, word in zip(["", *given], given, strict=False):
            name, equals, value = word.partition("=")
            if word and not (name.startswith("--") and equals and not value):
                continue
            option = self._option_string_actions.get(name if word else before)
            if option is None or option.nargs == 0:
                self.error("an argument is empty; give a file or a folder")
            if option.type is Path or option.dest in ("out", "run", "resume", "cache"):
                self.error(f"{option.option_strings[-1]} is empty; give a file or a folder")
            if option.dest == "recipe":  # '' would mean no recipe
                self.error(f"{option.option_strings[-1]} is empty; give it, or leave it out")

    def check(self, args: argparse.Namespace, check: Callable, *names: str, **limits: Any) -> None:
        """Exit with a usage error if ``check`` rejects the value of a given option.

        Args:
            args: the parsed options.
            check: ``check_at_least``, or another of the checks above.
            names: of the options, as in ``args``.
            limits: keyword arguments of ``check``.
        """
        try:
            for name in names:
                if (value := getattr(args, name)) is not None:
                    check(flag(name), value, **limits)
        except ValueError as error:
            self.error(str(error))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """As in argparse, but flushes first: a closed pipe raises here rather than at shutdown."""
        print(end="", flush=True)
        super().exit(status, message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = ", ".join(map(str, action.choices))
            similar = did_you_mean(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"'{value}'{similar} is not one of {known}")

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line, which refers to ``--help``."""
        self.exit(FAILURE, f"error: {message}; see {self.prog} --help\n")


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, like Ctrl-C, so that open files and folders are cleaned up."""


@contextlib.contextmanager
def _raise_on_signals(received: list[int]) -> Iterator[None]:
    """Record and raise SIGTERM and Ctrl-C within the block; only in the main thread.

    They are recorded because native code that calls Python may drop an exception raised there, or
    replace it with an error of its own (TensorFlow, while it traces a graph).
    """

    def stop(number, frame):
        received.append(number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not in a background job
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """Decorator: make a function of command-line arguments (None: ``sys.argv``) a command.

    Expected errors become one line on stderr and status 2. Ctrl-C and SIGTERM end the command
    cleanly, with the shells' status for them (130, 143), and leave no half-written file. If the
    output's reader is gone, as with ``head``, it ends silently with 141. Log messages of
    TensorFlow, LiteRT and XLA are suppressed: their failures are raised in Python as well.
    """

    @functools.wraps(main)
    def run(arguments: list[str] | None = None) -> int:
        """Run the command and return its exit status."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be any bytes
            sys.stdout.reconfigure(errors="backslashreplace")
        received: list[int] = []
        try:
            with _raise_on_signals(received):
                status = main(arguments) or 0
                print(end="", flush=True)  # a closed pipe raises here rather than at shutdown
        except KeyboardInterrupt as stop:
            number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
            # Ray replaces the exception of a signal by a KeyboardInterrupt of its own.
            return _stopped(received[0] if received else number, str(stop))
        except Exception as error:
            if received:
                return _stopped(received[0])
            if isinstance(error, BrokenPipeError) and _drop_unread():
                return UNREAD
            if not isinstance(error, EXPECTED):
                raise
            print(f"error: {error}", file=sys.stderr)
            return FAILURE
        return _stopped(received[0]) if received else status

    return run


def _drop_unread() -> bool:
    """Redirect output streams without a reader to the null device; whether there were any.

    Flushing them at shutdown would fail otherwise (Python's documentation, "Note on SIGPIPE").
    """
    found = False
    for stream in (sys.stdout, sys.stderr):
        # The stream has no file (None, or in tests), or ``poll`` does not exist (Windows).
        with contextlib.suppress(AttributeError, OSError):
            poll = select.poll()
            poll.register(stream.fileno(), 0)  # only errors
            if poll.poll(0):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                found = True
    return found


def list_failures(reasons: list[str]) -> int:
    """Print a line per failed input on stderr; return the exit status: 1 if any, else 0."""
    for reason in reasons:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if reasons else 0


def _stopped(number: int, words: str = "") -> int:
    """Print that a signal stopped the command; return the shells' status for the signal."""
    print(words or "stopped", file=sys.stderr)
    return 128 + number


def configuration(cls: type[T], values: Mapping[str, Any], source: str = "configuration") -> T:
    """A dataclass from named values.

    Args:
        cls: a dataclass whose fields are str, int, float or bool and have defaults.
        values: some of its fields; the others keep their defaults. An int may stand for a float.
        source: named in errors, e.g. the file that the values come from.

    Raises:
        ValueError: a name is unknown (the message lists the known ones), or a value has the wrong
            type or is rejected by the dataclass.
    """
    types = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            similar = did_you_mean(str(name), known)
            raise ValueError(
                f"{source}: unknown key '{name}'{similar}; choose from {', '.join(known)}"
            )
    try:
        return cls(**{name: typed(value, types[name], name) for name, value in values.items()})
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def typed(value: Any, kind: type, name: str) -> Any:
    """A setting of type ``kind``; an int, or text such as '1e-3', may stand for a float.

    Raises:
        ValueError: it has another type.
    """
    if kind is float and (type(value) is int or _is_exponential(value)):
        with contextlib.suppress(OverflowError, ValueError):
            return float(value)
    if type(value) is not kind:  # not isinstance, for which a bool is an int
        raise wrong_type(name, value, kind.__name__)
    return value


def check_types(given: Dataclass, *kinds: type) -> None:
    """Check that the fields of a frozen dataclass have the types of their defaults.

    NumPy's numbers become Python's, and a path becomes text. Called by ``__post_init__``, so that
    settings made in Python are checked as strictly as those read from files: as a flag, the text
    "no" would count as true.

    Args:
        given: the dataclass, whose fields have defaults.
        kinds: check only fields of these types; by default str, int, float and bool.

    Raises:
        ValueError: a value has another type.
    """
    for one in dataclasses.fields(given):
        value, kind = getattr(given, one.name), type(one.default)
        if kind not in (kinds or (str, int, float, bool)):
            continue
        if isinstance(value, np.generic):
            value = value.item()
        if kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        object.__setattr__(given, one.name, typed(value, kind, one.name))


def _is_exponential(value: Any) -> bool:
    """Whether the value is a number such as '1e-3', which YAML 1.1 reads as text."""
    return isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", value) is not None


def read_yaml(path: str | os.PathLike, levels: int = 8) -> dict[str, Any]:
    """The names and values of a YAML file.

    The key ``base`` names another YAML file in the same folder, without its suffix, whose values
    are defaults for those that this file does not set.

    Args:
        path: the file.
        levels: how many files may be chained by ``base``.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
        ValueError: the file is not YAML, or not one level of names and values, or its bases form
            a cycle or are too many.
    """
    if not levels:
        raise ValueError(f"{path}: the files named by base form a cycle, or are too many")
    path = existing_file(path, "a YAML file")
    values = read_plain_yaml(path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must have lines of 'name: value', not {type(values).__name__}")
    if (base := values.pop("base", None)) is None:
        return values
    if not isinstance(base, str) or base in ("", path.stem) or set(base) & set("/\\:"):
        raise ValueError(f"{path}: base is {base!r}; it must name another file beside this one")
    below = read_yaml(path.with_name(f"{base}.yaml"), levels - 1)
    return below | values


def add_options(parser: argparse.ArgumentParser, cls: type) -> None:
    """Add an option ``--name VALUE`` for each field of a dataclass, and ``--config FILE.yaml``.

    A field's help is its ``metadata["help"]``.
    """
    types = typing.get_type_hints(cls)
    parser.add_argument("--config", metavar="FILE.yaml", help="values; other options override them")
    for field in dataclasses.fields(cls):
        given = "''" if field.default == "" else field.default
        parser.add_argument(
            flag(field.name),
            dest=field.name,
            type=_boolean if types[field.name] is bool else types[field.name],
            default=argparse.SUPPRESS,
            metavar=types[field.name].__name__.upper(),
            help=f"{field.metadata.get('help', '')} ({given})".replace("%", "%%"),
        )


def from_options(cls: type[T], options: argparse.Namespace) -> T:
    """The dataclass from options of ``add_options``: defaults < --config < command line.

    Raises:
        FileNotFoundError, ValueError: see ``read_yaml`` and ``configuration``.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    given = {name: value for name, value in vars(options).items() if name in known}
    if options.config is None:
        return configuration(cls, given, "command line")
    in_file = configuration(cls, read_yaml(options.config), options.config)
    return configuration(cls, {**dataclasses.asdict(in_file), **given}, "command line")


def _boolean(text: str) -> bool:
    if text.lower() not in BOOLEANS:
        raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(BOOLEANS)}")
    return BOOLEANS[text.lower()]

"""What all commands share: how they parse, run and fail; settings, their types and ranges."""

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

from keras_scnn.storage.text import read_plain_yaml


class Dataclass(Protocol):
    """An instance of any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=Dataclass)
SETTINGS = "config.yaml"
DEFAULT_PRESET = "mobile"  # of reconstruct, compare, serve and demo
BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}
FAILURE = 2  # exit status of a command that could not do its work, as argparse's
UNREAD = 141  # of one whose output nobody reads any more, as shells have it for SIGPIPE
NUMBER = re.compile(r"-\d*\.?\d*(?:e[-+]?\d+)?")  # below 0, on a command line
# Errors that a user's input or machine causes; anything else is a bug and keeps its traceback.
EXPECTED = (ImportError, OSError, RuntimeError, ValueError)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' (did you mean 'x'?)' with the most similar known word; '' where none is similar."""
    similar = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{similar[0]}'?)" if similar else ""


def flag(name: str) -> str:
    """The option of a parsed name: ``--bfm-info`` of ``bfm_info``."""
    return f"--{name.replace('_', '-')}"


def check_number(name: str, value: float) -> None:
    """Raise a ValueError for what is no number: text, None, a list."""
    has_axes = hasattr(value, "ndim") and value.ndim > 0  # NumPy's scalars have none
    if has_axes or isinstance(value, bool) or not hasattr(value, "__float__"):
        given = f"{repr(value)[:80]} ({type(value).__name__})"
        raise ValueError(f"{name} is {given}; it must be a number")


def check_at_least(name: str, value: float, low: float = 0.0) -> None:
    """Raise a ValueError for what is no number, or one below ``low``, or not finite."""
    check_number(name, value)
    if not low <= value < math.inf:
        raise ValueError(f"{name} is {value}; it must be {low:g} or more, and finite")


def check_above(name: str, value: float) -> None:
    """Raise a ValueError for what is no number, or one that is not above 0, or not finite."""
    check_number(name, value)
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it must be above 0, and finite")


def check_share(name: str, value: float) -> None:
    """Raise a ValueError for what is no number, or one that does not lie in 0 to 1."""
    check_number(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must lie in 0 to 1")


def check_score(name: str, value: float) -> None:
    """Raise a ValueError for what is no number between 0 and 1, both excluded."""
    check_number(name, value)
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value:g}; it must lie between 0 and 1")


def whole(name: str, value: int, low: int = 1) -> int:
    """A whole number, which may be NumPy's, as int.

    Raises:
        ValueError: it is none, or below ``low``.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} is {value!r}; it must be a whole number, {low} or more")
    check_at_least(name, value, low)
    return int(value)


def check_workers(workers: int | None) -> None:
    """Raise a ValueError for a number of processes below 1; None stands for one a core."""
    if workers is not None:
        whole("workers", workers)


def words_of(text: str) -> list[str]:
    """The words of an option that takes several with commas between them, and blanks or not."""
    return [word.strip() for word in text.split(",")]


def folders_of(text: str) -> list[str]:
    """The files or folders of a setting that has several with commas between them, or URLs."""
    return [word for word in words_of(text) if word]


class CommandParser(argparse.ArgumentParser):
    """The parser of one command: options are written in full, and typing errors are understood.

    Args:
        command: its name: ``keras-scnn NAME``.
        description: what it does; paragraphs and lines stay as they are.
    """

    def __init__(self, command: str, description: str):
        super().__init__(
            f"keras-scnn {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """As argparse's, but an unknown option is reported before a missing one."""
        given = sys.argv[1:] if args is None else list(args)
        known = list(self._option_string_actions)
        for word in given[: given.index("--")] if "--" in given else given:
            name = word.partition("=")[0]
            if re.match("--.", name) and name not in known:
                self.error(f"unknown option {name}{did_you_mean(name, known)}")
            if re.match("-[^-]", word) and not NUMBER.fullmatch(word) and word not in known:
                self.error(f"unknown option {word}; a file of that name is written ./{word}")
        self._check_empty(given)
        return super().parse_args(given, namespace)

    def _check_empty(self, given: list[str]) -> None:
        """Refuse '', as of a shell's variable that is not set, which a path takes for '.'."""
        for before, word in zip(["", *given], given, strict=False):
            name, equals, value = word.partition("=")
            if word and not (name.startswith("--") and equals and not value):
                continue
            option = self._option_string_actions.get(name if word else before)
            if option is None or option.nargs == 0:
                self.error("an argument is empty; give a file or a folder")
            if option.type is Path or option.dest in ("out", "run", "resume", "cache"):
                self.error(f"{option.option_strings[-1]} is empty; give a file or a folder")
            if option.dest == "recipe":  # '' is none
                self.error(f"{option.option_strings[-1]} is empty; give it, or leave it out")

    def check(self, args: argparse.Namespace, check: Callable, *names: str, **limits: Any) -> None:
        """End with a usage error where an option that was given is not what ``check`` lets pass.

        Args:
            args: the parsed options.
            check: ``check_at_least``, or another of the checks above.
            names: of the options, as in ``args``.
            limits: for ``check``.
        """
        try:
            for name in names:
                if (value := getattr(args, name)) is not None:
                    check(flag(name), value, **limits)
        except ValueError as error:
            self.error(str(error))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """As argparse's; that nobody reads the help is noticed here rather than at the exit."""
        print(end="", flush=True)
        super().exit(status, message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = ", ".join(map(str, action.choices))
            similar = did_you_mean(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"'{value}'{similar} is not one of {known}")

    def error(self, message: str) -> NoReturn:
        """One line, and status 2; ``--help`` shows the rest."""
        self.exit(FAILURE, f"error: {message}; see {self.prog} --help\n")


class Terminated(KeyboardInterrupt):
    """SIGTERM came: raised like Ctrl-C, so that open files and folders are cleaned up."""


@contextlib.contextmanager
def _stops_raised(came: list[int]) -> Iterator[None]:
    """In the block, SIGTERM and Ctrl-C are noted and raised, where it is run by the main thread.

    They are noted because native code that calls Python may drop what is raised there, or turn it
    into an error of its own (TensorFlow, while it traces a graph).
    """

    def stop(number, frame):
        came.append(number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, stop)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not of a background job
        before[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command(main: Callable[[list[str] | None], int | None]) -> Callable[..., int]:
    """Make a function of the words of a command line (None: this process's) a command.

    Expected errors become one line on stderr and status 2. Ctrl-C and SIGTERM end it in an orderly
    way, with the status that shells give them (130, 143): nothing half-written stays. So does, in
    silence (141), that its output is no longer read, as by ``head``. TensorFlow, LiteRT and XLA
    keep their notices to themselves: what fails in them is raised in Python as well.
    """

    @functools.wraps(main)
    def run(arguments: list[str] | None = None) -> int:
        """The command, with its exit status."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be any bytes
            sys.stdout.reconfigure(errors="backslashreplace")
        came: list[int] = []
        try:
            with _stops_raised(came):
                status = main(arguments) or 0
                print(end="", flush=True)  # what nobody reads is noticed here, not at the exit
        except KeyboardInterrupt as stop:
            number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
            return _stopped(number, str(stop))
        except Exception as error:
            if came:
                return _stopped(came[0])
            if isinstance(error, BrokenPipeError) and _drop_unread():
                return UNREAD
            if not isinstance(error, EXPECTED):
                raise
            print(f"error: {error}", file=sys.stderr)
            return FAILURE
        return _stopped(came[0]) if came else status

    return run


def _drop_unread() -> bool:
    """Send output that nobody reads any more to nowhere; whether there is such.

    What is left of it would else fail at the exit (Python's documentation, "Note on SIGPIPE").
    """
    found = False
    for stream in (sys.stdout, sys.stderr):
        # No file (None, or in tests), or no such function (Windows).
        with contextlib.suppress(AttributeError, OSError):
            looked = select.poll()
            looked.register(stream.fileno(), 0)  # for errors alone
            if looked.poll(0):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                found = True
    return found


def list_failures(reasons: list[str]) -> int:
    """Print on stderr why inputs of a command failed, a line each; its exit status: 1, else 0."""
    for reason in reasons:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if reasons else 0


def _stopped(number: int, words: str = "") -> int:
    """Say that a signal stopped the command; the status that shells give it."""
    print(words or "stopped", file=sys.stderr)
    return 128 + number


def configuration(cls: type[T], values: Mapping[str, Any], source: str = "configuration") -> T:
    """A frozen dataclass from named values.

    Args:
        cls: a dataclass whose fields are str, int, float or bool and have defaults.
        values: some of its fields; the others keep their defaults. An int may stand for a float.
        source: named in errors, e.g. the file that the values come from.

    Raises:
        ValueError: a name is unknown (the message lists the known ones), or a value has the wrong
            type or is refused by the dataclass.
    """
    types = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for name in values:
        if name not in known:
            similar = did_you_mean(str(name), known)
            raise ValueError(
                f"{source}: unknown key '{name}'{similar}; known are {', '.join(known)}"
            )
    try:
        return cls(**{name: typed(value, types[name], name) for name, value in values.items()})
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def typed(value: Any, kind: type, name: str) -> Any:
    """A setting as str, int, float or bool; an int, or text such as '1e-3', may stand for a float.

    Raises:
        ValueError: it is of another type.
    """
    if kind is float and (type(value) is int or _is_exponential(value)):
        with contextlib.suppress(OverflowError, ValueError):
            return float(value)
    if type(value) is not kind:  # bool is an int to isinstance, but never meant as one here
        raise ValueError(
            f"{name} is {repr(value)[:80]} ({type(value).__name__}); it must be {kind.__name__}"
        )
    return value


def check_types(given: Dataclass, *kinds: type) -> None:
    """Bring the fields of a frozen dataclass to the type of their defaults.

    NumPy's numbers become Python's, and a path becomes text. Called by ``__post_init__``: what is
    made in Python is as strict as what is read, where "no" would count as true.

    Args:
        given: whose fields have defaults.
        kinds: types of the fields that are looked at; none for str, int, float and bool.

    Raises:
        ValueError: a value is of another type.
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
    """Whether it is a number such as '1e-3', which YAML 1.1 takes for text."""
    return isinstance(value, str) and re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", value) is not None


def read_yaml(path: str | os.PathLike, levels: int = 8) -> dict[str, Any]:
    """The names and values of a YAML file.

    A value of ``base`` names another YAML file beside it, without its suffix, whose values hold
    where the file has none.

    Args:
        path: the file.
        levels: how many files may stand on one another.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no YAML, or not one level of names and values, or its bases lead
            in a circle.
    """
    path = Path(path)
    if not levels:
        raise ValueError(f"{path}: the files named by base lead in a circle, or are too many")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; --config takes a YAML file")
    values = read_plain_yaml(path)
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must hold lines of 'name: value', not {type(values).__name__}")
    if (base := values.pop("base", None)) is None:
        return values
    if not isinstance(base, str) or base in ("", path.stem) or set(base) & set("/\\:"):
        raise ValueError(f"{path}: base is {base!r}; it must name another file beside this one")
    below = read_yaml(path.with_name(f"{base}.yaml"), levels - 1)
    return below | values


def add_options(parser: argparse.ArgumentParser, cls: type) -> None:
    """An option ``--name VALUE`` for each field of a dataclass, and ``--config FILE.yaml``.

    A field's help is ``metadata["help"]``.
    """
    types = typing.get_type_hints(cls)
    parser.add_argument("--config", metavar="FILE.yaml", help="values; other options override it")
    for field in dataclasses.fields(cls):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=field.name,
            type=_boolean if types[field.name] is bool else types[field.name],
            default=argparse.SUPPRESS,
            metavar=types[field.name].__name__.upper(),
            help=f"{field.metadata.get('help', '')} ({field.default})".replace("%", "%%"),
        )


def from_options(cls: type[T], options: argparse.Namespace) -> T:
    """The dataclass that parsed ``add_options`` ask for: defaults < --config < command line.

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

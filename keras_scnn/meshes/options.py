"""Options of mesh files; commands parse them before they import anything heavy."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

from keras_scnn.settings import check_types, did_you_mean, words_of

MESH_FORMATS = ("obj", "ply", "glb")
UNITS = {"mm": 1.0, "cm": 0.1, "m": 0.001}  # units of a file per millimeter
PARTS = ("skin", "eyes", "mouth", "teeth", "tongue", "back")


@dataclass(frozen=True)
class MeshOptions:
    """How a face is written to a mesh file.

    Attributes:
        unit: of OBJ and PLY files, 'mm', 'cm' or 'm'; GLB is always in meters.
        neutral: without the photo's expression; in GLB the expressions' weights are set to zero.
        parts: some of PARTS, if the face model has them (``meshes.parts``), in any order; None for
            all it has.
        baked: the texture contains the photo's lighting; if False, the lighting is removed, for
            renderers that have their own.

    Raises:
        ValueError: an unknown unit or part, no part, or a flag that is neither True nor False.
    """

    unit: str = "m"
    neutral: bool = False
    parts: tuple[str, ...] | None = None
    baked: bool = False

    def __post_init__(self) -> None:
        check_types(self, bool)
        check_unit(self.unit)
        if self.parts is not None:
            given = check_part_names(self.parts, PARTS)
            # In one order, so that a folder's run continues whatever order a command line has.
            object.__setattr__(self, "parts", tuple(part for part in PARTS if part in given))


def check_unit(unit: str, suffix: str = "") -> None:
    """Raise a ValueError for an unknown unit, or one that a format does not support."""
    if not isinstance(unit, str) or unit not in UNITS:
        raise ValueError(f"unknown unit '{unit}'; choose from {', '.join(UNITS)}")
    if suffix == ".glb" and unit != "m":
        raise ValueError(f"GLB is always in meters, not in '{unit}'; use OBJ or PLY for that")


def check_mesh_format(name: str, value: str) -> None:
    """Raise a ValueError if a setting ``name`` is not one of MESH_FORMATS."""
    if value not in MESH_FORMATS:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(MESH_FORMATS)}")


def check_part_names(parts: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The parts as a tuple; a ValueError for an unknown part, or for no part."""
    known = tuple(known)
    given = () if isinstance(parts, str) or not isinstance(parts, Iterable) else tuple(parts)
    if not given:
        raise ValueError(f"parts is {parts!r}; give a tuple of {', '.join(known)}")
    for name in given:
        if name not in known:
            similar = did_you_mean(str(name), known)
            raise ValueError(f"unknown part '{name}'{similar}; choose from {', '.join(known)}")
    return given


def add_mesh_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options of a command that writes meshes."""
    add = parser.add_argument
    add("--format", choices=MESH_FORMATS, help="mesh format (obj; glb for a video)")
    add("--unit", choices=tuple(UNITS), help="unit of OBJ and PLY (m, as importers expect)")
    add("--neutral", action="store_true", help="write the face without the photo's expression")
    texture = parser.add_mutually_exclusive_group()
    words = "texture of the skin's own colors, with the photo's lighting removed (the default)"
    texture.add_argument("--albedo", action="store_true", help=words)
    words = "texture as in the photo, with its lighting"
    texture.add_argument("--baked", action="store_true", help=words)
    words = "comma-separated parts of the face to write (all): "
    add("--parts", metavar="PART,...", help=words + ", ".join(PARTS))


def mesh_options(
    args: argparse.Namespace, parser: argparse.ArgumentParser, written: bool
) -> MeshOptions:
    """The mesh options of a command line; invalid ones are reported by ``parser.error``.

    Args:
        args: parsed options, including those of ``add_mesh_options``.
        parser: of the command.
        written: whether this command line writes meshes at all.
    """
    names = "unit", "neutral", "parts", "albedo", "baked"
    given = [name for name in names if getattr(args, name)]
    if given and not written:
        parser.error(f"--{given[0]} is for meshes; for a folder, --meshes writes them")
    parts = None if args.parts is None else tuple(words_of(args.parts))
    try:
        check_unit(args.unit or "m", f".{args.format}")
        return MeshOptions(args.unit or "m", args.neutral, parts, args.baked)
    except ValueError as error:
        parser.error(str(error))

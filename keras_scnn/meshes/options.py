"""What is written of a face, and how; read by commands before anything heavy is imported."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

from keras_scnn.settings import check_types, did_you_mean, words_of

MESH_FORMATS = ("obj", "ply", "glb")
UNITS = {"mm": 1.0, "cm": 0.1, "m": 0.001}  # of a file, in a millimeter
PARTS = ("skin", "eyes", "mouth", "teeth", "tongue", "back")


@dataclass(frozen=True)
class MeshOptions:
    """What is written of a face.

    Attributes:
        unit: of OBJ and PLY files, 'mm', 'cm' or 'm'; GLB is in meters always.
        neutral: without the photo's expression. In GLB, which has both, its weights are zero then.
        parts: some of PARTS, of which each face model has its own (``meshes.parts``); None for all.
        baked: the texture has the photo's light; False has it taken out, for renderers with light.

    Raises:
        ValueError: an unknown unit or part, no part, or neither True nor False.
    """

    unit: str = "m"
    neutral: bool = False
    parts: tuple[str, ...] | None = None
    baked: bool = False

    def __post_init__(self) -> None:
        check_types(self, bool)
        check_unit(self.unit)
        if self.parts is not None:
            check_part_names(self.parts, PARTS)
            object.__setattr__(self, "parts", tuple(self.parts))


def check_unit(unit: str, suffix: str = "") -> None:
    """Raise a ValueError for an unknown unit, or for one that a format does not have."""
    if unit not in UNITS:
        raise ValueError(f"unknown unit '{unit}'; known are {', '.join(UNITS)}")
    if suffix == ".glb" and unit != "m":
        raise ValueError(f"GLB is in meters always, not in '{unit}'; OBJ and PLY may be")


def check_mesh_format(name: str, value: str) -> None:
    """Raise a ValueError for a setting ``name`` that is no format of MESH_FORMATS."""
    if value not in MESH_FORMATS:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(MESH_FORMATS)}")


def check_part_names(parts: Iterable[str], known: Iterable[str]) -> None:
    """Raise a ValueError for a part that is not known, or for none."""
    known = tuple(known)
    if isinstance(parts, str) or not (parts := tuple(parts)):
        raise ValueError(f"parts is {parts!r}; give a tuple of {', '.join(known)}")
    for name in parts:
        if name not in known:
            similar = did_you_mean(name, known)
            raise ValueError(f"unknown part '{name}'{similar}; known are {', '.join(known)}")


def add_mesh_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """The options of a command that writes meshes."""
    add = parser.add_argument
    add("--format", choices=MESH_FORMATS, help="of the mesh (obj; glb for a video)")
    add("--unit", choices=tuple(UNITS), help="of OBJ and PLY (m, as importers expect)")
    add("--neutral", action="store_true", help="the person without the photo's expression")
    texture = parser.add_mutually_exclusive_group()
    words = "texture of the skin's own colors, the photo's light taken out (the default)"
    texture.add_argument("--albedo", action="store_true", help=words)
    words = "texture of the photo as it is, with its light"
    texture.add_argument("--baked", action="store_true", help=words)
    words = "what to write of the face, with commas between (all): "
    add("--parts", metavar="PART,...", help=words + ", ".join(PARTS))


def mesh_options(
    args: argparse.Namespace, parser: argparse.ArgumentParser, written: bool
) -> MeshOptions:
    """The options of a command line; what does not fit ends it by ``parser.error``.

    Args:
        args: with the values of ``add_mesh_options``.
        parser: of the command.
        written: whether this command line writes meshes at all.
    """
    names = "unit", "neutral", "parts", "albedo", "baked"
    given = [name for name in names if getattr(args, name)]
    if given and not written:
        parser.error(f"--{given[0]} is for meshes, which --meshes writes of a folder")
    parts = None if args.parts is None else tuple(words_of(args.parts))
    try:
        check_unit(args.unit or "m", f".{args.format}")
        return MeshOptions(args.unit or "m", args.neutral, parts, args.baked)
    except ValueError as error:
        parser.error(str(error))

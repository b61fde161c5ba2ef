"""From a video to animated faces: ``reconstruct_clip``, for ``keras-scnn reconstruct clip.mp4``.

The folder ``out`` gets ``overlay.mp4``; ``face_0.glb``, ``face_0.csv`` and so on for each face;
``faces.parquet`` with one row per face and frame; ``clip.json``, written last, which lists the
files; ``frames/``, the network's predictions for each frame, in parts; and ``plan.json``, the
settings and the video of the run.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_scnn.evaluation.calibration import checked_calibration
from keras_scnn.folders.table import read_about, read_part, require_pyarrow
from keras_scnn.meshes.parts import check_parts
from keras_scnn.models.preset_network import PresetData
from keras_scnn.models.presets import read_preset
from keras_scnn.reconstruction.reconstructor import provenance
from keras_scnn.settings import check_workers
from keras_scnn.storage.guard import reading
from keras_scnn.storage.outputs import listed_files
from keras_scnn.storage.shards import (
    ShardJob,
    claimed_folder,
    fingerprint,
    run_shards,
    worker_environment,
)
from keras_scnn.storage.text import counted, read_json, write_json
from keras_scnn.video.clip import Clip, open_clip
from keras_scnn.video.frames import FRAMES, ClipSettings, FramesJob, frames_path, seen_frames
from keras_scnn.video.overlay import OVERLAY, OverlayJob, join
from keras_scnn.video.results import (
    TABLE,
    face_stem,
    frame_look,
    no_csv_message,
    track_summary,
    write_face_files,
    write_tracks,
)
from keras_scnn.video.shots import find_cuts
from keras_scnn.video.tracks import (
    LEAST_FRAMES,
    ClipPerson,
    Track,
    Tracklet,
    find_people,
    find_tracklets,
    smooth_tracks,
)

DONE, OVERLAY_PARTS = "clip.json", "overlay"


@dataclass(frozen=True)
class ClipResult:
    """Summary of a reconstructed clip.

    Attributes:
        frames: number of frames in the clip.
        tracks: number of tracked faces.
        failures: parts of the clip that could not be read, one line each.
        notes: what else was left out, and why.
    """

    frames: int
    tracks: int
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def reconstruct_clip(
    clip: Clip | str | os.PathLike,
    out: str | os.PathLike,
    settings: ClipSettings = ClipSettings(),
    workers: int | None = None,
    command: str = "",
) -> ClipResult:
    """Reconstruct the faces of a video, with progress bars.

    It may be stopped at any time: the same call then resumes after the last complete part, with the
    same results as an uninterrupted run. More than one worker starts processes, so a script has to
    call this under ``if __name__ == "__main__"``.

    Args:
        clip: the video, or its path.
        out: folder for the results.
        settings: that determine the results.
        workers: number of processes, 1 or more; None for one per core.
        command: recorded in the metadata.

    Raises:
        ImportError: PyAV or pyarrow is missing.
        FileNotFoundError: there is no such file, or no such preset.
        ValueError: it is not a video, it shows no face, ``out`` holds other files, or a photo's
            results that would be overwritten, the face model lacks a requested part, the preset's
            calibration is damaged, or ``workers`` is below 1.
        RuntimeError: a worker process died.
    """
    require_pyarrow()
    check_workers(workers)
    clip, out = clip if isinstance(clip, Clip) else open_clip(Path(clip)), Path(out)
    preset = read_preset(settings.preset)
    check_parts(preset.face_model, settings.mesh_options.parts)
    checked_calibration(preset.metadata.get("verification"))  # before the clip is searched
    plan = {
        "clip": clip.path.name,
        "clip_file": fingerprint(clip.path),
        **json.loads(json.dumps(asdict(settings))),
        **provenance(settings.preset),
    }
    about = {**plan, "face_model": preset.face_model.name, "command": command}
    with claimed_folder(out, plan, "results"):
        _check_summary(out)
        if done := _finished(out):
            return done
        _check_photos(out)
        return _Run(clip, out, settings, preset, about, workers).make()


def _check_summary(out: Path) -> None:
    """Raise a ValueError if a photo's results have the name of the clip's summary."""
    if listed_files(out / DONE):
        raise ValueError(
            f"{out / DONE}: has the results of a photo, and the summary of the clip would "
            "overwrite it; move that photo's results away, or choose another folder"
        )


def _finished(out: Path) -> ClipResult | None:
    """The result of a completed run whose files all exist."""
    if not (out / DONE).is_file():
        return None
    with reading(out / DONE, "the summary of a clip; delete it to have the files made again"):
        content = read_json(out / DONE)
        if not all((out / name).is_file() for name in content["files"]):
            return None
        lists = tuple(content["failures"]), tuple(content["notes"])
        return ClipResult(content["frames"], len(content["tracks"]), *lists)


def _check_photos(out: Path) -> None:
    """Raise a ValueError if a photo's results in an unfinished run have the names of a face's."""
    for note in sorted(out.glob("face_*.json")):
        if taken := {f"{note.stem}.glb", f"{note.stem}.csv"} & listed_files(note):
            raise ValueError(
                f"{out}: the clip's results could overwrite {', '.join(sorted(taken))} of a photo "
                f"({note.name}); move that photo's results away, or choose another folder"
            )


@dataclass(frozen=True, eq=False)
class _Run:
    """A run that is not complete."""

    clip: Clip
    out: Path
    settings: ClipSettings
    preset: PresetData
    about: dict[str, Any]
    workers: int | None

    def make(self) -> ClipResult:
        """Find faces, join them to tracks, and write all files; complete parts are kept."""
        (self.out / FRAMES).mkdir(exist_ok=True)
        job = FramesJob(self.clip, self.out, self.settings, self.about)
        self._make_parts(job, [frames_path(self.out, n) for n in self._parts], "looking for faces")
        cuts, decoded = self._cuts()
        people, tracklets, tracks = self._tracks(cuts, decoded)
        failures, notes = self._failures(decoded), _left_out(people, tracklets)
        if not tracks:
            why = "; ".join(("no face found", *notes, *failures))
            raise ValueError(f"{self.clip.path}: {why} ({counted(decoded, 'frame')} searched)")
        files = self._write(people, tracks, {**self.about, "cuts": cuts})
        if not any(name.endswith(".csv") for name in files):
            notes += (no_csv_message(self.preset.face_model),)
        self._draw()
        content = {
            "clip": self.clip.path.name,
            "frames": len(self.clip),
            "size": list(self.clip.size),
            "frames_a_second": float(self.clip.rate),
            "cuts": cuts,
            "tracks": [track_summary(*pair) for pair in zip(tracks, people, strict=True)],
            "failures": failures,
            "notes": notes,
            "files": [*files, OVERLAY],
        }
        write_json(self.out / DONE, content)
        return ClipResult(len(self.clip), len(tracks), failures, notes)

    @property
    def _parts(self) -> range:
        return range(-(-len(self.clip) // self.settings.part_frames))

    def _make_parts(self, job: ShardJob, paths: list[Path], what: str) -> None:
        """Make the parts whose files are missing or damaged."""
        size = self.settings.part_frames
        lengths = [min(size, len(self.clip) - size * n) for n in self._parts]
        missing = [n for n, path in enumerate(paths) if not _is_sound(path)]
        done = sum(lengths) - sum(lengths[n] for n in missing)
        bar = tqdm(total=len(self.clip), initial=done, desc=what, unit="frame", smoothing=0.05)
        with bar, worker_environment():
            for number, _ in run_shards(job, {n: [] for n in missing}, self.workers):
                bar.update(lengths[number])

    def _cuts(self) -> tuple[list[int], int]:
        """The numbers of frames that begin a shot, and how many frames were decoded."""
        abouts = [read_about(frames_path(self.out, n)) for n in self._parts]
        numbers = [number for about in abouts for number in about["frames"]]
        changes = np.array([value for about in abouts for value in about["changes"]])
        return [numbers[i] for i in np.flatnonzero(find_cuts(changes))], len(numbers)

    def _tracks(self, cuts: list[int], decoded: int) -> tuple[list, list, list]:
        """People, tracklets and tracks."""
        model, seconds = self.preset.face_model, self.clip.seconds
        frames = self._frames("tracking faces")
        tracklets, numbers = find_tracklets(model, frames, seconds, set(cuts))
        calibration = self.preset.metadata.get("verification")
        people = find_people(tracklets, calibration, min(LEAST_FRAMES, decoded))
        frames = self._frames("smoothing")
        return people, tracklets, smooth_tracks(model, people, frames, numbers, seconds)

    def _frames(self, what: str) -> Iterator[tuple[int, float, dict[str, np.ndarray]]]:
        """All frames, with a progress bar."""
        frames = seen_frames(self.out, len(self._parts))
        return iter(tqdm(frames, desc=what, total=len(self.clip), unit="frame"))

    def _failures(self, decoded: int) -> tuple[str, ...]:
        lines, clip = [], self.clip
        if clip.missing_seconds:
            lines.append(
                f"{clip.path}: cut off: {clip.missing_seconds:.1f} s of its length are missing"
            )
        lines += [
            f"{clip.path}: {length:.1f} s from {start:.1f} s on are missing"
            for start, length in clip.gaps
        ]
        if damaged := len(clip) - decoded:
            lines.append(f"{clip.path}: {damaged} of {len(clip)} frames cannot be decoded")
        return tuple(lines)

    def _write(self, people: list[ClipPerson], tracks: list[Track], about: dict) -> list[str]:
        """Write the table and the files of each face; returns their names."""
        write_tracks(self.out / TABLE, tracks, about)
        files = [self.out / TABLE]
        for i, (person, track) in enumerate(zip(people, tracks, strict=True)):
            options = self.settings.mesh_options
            look = frame_look(self.clip, *person.best, options.baked)
            files += write_face_files(face_stem(self.out, i), track, self.clip, look, options)
        return [file.name for file in files]

    def _draw(self) -> None:
        """Write the overlay video."""
        home, size = self.out / OVERLAY_PARTS, self.settings.part_frames
        home.mkdir(exist_ok=True)
        job = OverlayJob(self.clip, self.out / TABLE, home, self.preset.face_model, size)
        paths = [job.path(n) for n in self._parts]
        self._make_parts(job, paths, "drawing")
        join(paths, self.out / OVERLAY)
        shutil.rmtree(home)


def _is_sound(path: Path) -> bool:
    """Whether a part exists and is not damaged; damage is detected only in Parquet files."""
    if not path.is_file():
        return False
    if path.suffix != ".parquet" or read_part(path) is not None:
        return True
    tqdm.write(f"{path}: damaged; it is made again")
    path.unlink()
    return False


def _left_out(people: Sequence[ClipPerson], tracklets: Sequence[Tracklet]) -> tuple[str, ...]:
    kept = {number for person in people for number in person.tracklets}
    short = [tracklet for i, tracklet in enumerate(tracklets) if i not in kept]
    if not short:
        return ()
    frames = sum(len(tracklet.frames) for tracklet in short)
    what = f"{len(short)} faces" if len(short) > 1 else "a face"
    return (f"left out: {what} seen in {frames} frames, fewer than {LEAST_FRAMES} each",)

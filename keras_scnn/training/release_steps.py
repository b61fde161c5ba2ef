"""The steps of a release, which are skipped if they were done and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from keras_scnn.storage.shards import digest
from keras_scnn.storage.text import read_json, write_json
from keras_scnn.training.digests import content_digest


class Steps:
    """Steps that are skipped if they were done and their inputs and results have not changed.

    Args:
        folder: for a file per step with the digests of its inputs and result.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def forget(self, name: str) -> None:
        """Mark a step as not done."""
        self._note(name).unlink(missing_ok=True)

    def do(
        self,
        name: str,
        inputs: dict,
        result: Path,
        make: Callable[[], None],
        continues: Sequence[Path] = (),
    ) -> None:
        """Do a step, unless it was done.

        Args:
            name: of the step.
            inputs: everything that determines the result, as JSON values.
            result: file or folder that the step makes.
            make: makes it.
            continues: folders in which ``make``, or a later step, continues an earlier result, and
                may refuse one of other inputs.

        Raises:
            RuntimeError: ``make`` raised one, or the result does not exist afterwards.
        """
        note, wanted = self._note(name), digest(inputs)
        before = dict(read_json(note)) if note.is_file() else {}
        is_done = before.get("inputs") == wanted and result.exists()
        if is_done and before["result"] == content_digest(result):
            print(f"--- {name}: done", flush=True)
            return
        print(f"--- {name}", flush=True)
        there = [str(folder) for folder in continues if folder.exists()]
        began = before.get("inputs", wanted) if there else wanted
        self._folder.mkdir(parents=True, exist_ok=True)
        # From now on the result may be incomplete, or of other inputs.
        write_json(note, {"inputs": began, "result": ""})
        try:
            make()
        except RuntimeError as error:
            if began == wanted:
                raise
            raise RuntimeError(
                f"{error}; if that is because the plan or the data changed after this step, delete "
                f"{' and '.join(there)}, and start the release again"
            ) from error
        if not result.exists():
            raise RuntimeError(f"{name} ended without making {result}")
        write_json(note, {"inputs": wanted, "result": content_digest(result)})

    def _note(self, name: str) -> Path:
        return self._folder / f"{name}.json"

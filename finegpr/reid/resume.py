"""The output folder of one training: the finished checkpoint, or the state from which to go on."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from finegpr.atomic import move, writing
from finegpr.errors import InputError, StateError, UnreadableError, write_anew
from finegpr.reid.checkpoint import Arrays, read_checkpoint, write_checkpoint
from finegpr.storage import read_json, write_json

INDIFFERENT = frozenset({"cache_bytes", "workers", "save_seconds"})
"""Settings that change how fast a training is, not what it computes."""

_log = logging.getLogger(__name__)


class StateFolder:
    """Holds model.safetensors when finished; before that last.safetensors and, behind it, previous.safetensors.

    ``plan`` (the config and what identifies seed, data and weights) is written into each; a file with another plan is
    refused with the fields that differ.
    """

    def __init__(self, folder: Path, *, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
        self.checkpoint = folder / "model.safetensors"
        self._last = folder / "last.safetensors"
        self._previous = folder / "previous.safetensors"
        self._bad = folder / "bad_images.json"
        plan = {**{name: value for name, value in config.items() if name not in INDIFFERENT}, **inputs}
        self._plan = json.loads(json.dumps(plan))  # as it is read again

    def finished(self) -> dict[str, Any] | None:
        """Facts of the finished training, if it is. Raises StateError when damaged or of another plan."""
        if not self.checkpoint.exists():
            return None
        _, facts = self._read(self.checkpoint)
        self._drop_states()
        return facts

    def finish(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write the final checkpoint, then drop the states before it."""
        write_checkpoint(self.checkpoint, tensors, {**facts, "plan": self._plan})
        self._drop_states()

    def _drop_states(self) -> None:
        for path in (self._last, self._previous, self._bad):
            with writing(path):
                path.unlink(missing_ok=True)

    def save_bad(self, bad: Mapping[int, str]) -> None:
        """Write which images (row -> reason) this training leaves out, before its first step."""
        write_json(self._bad, {"plan": self._plan, "bad": sorted(bad.items())})

    def load_bad(self) -> dict[int, str] | None:
        """What this training leaves out, once an epoch of it is saved; else None. Raises StateError when damaged."""
        is_begun = self._last.exists() or self._previous.exists()
        if not is_begun or not self._bad.exists():
            return None
        found = read_json(self._bad)
        return dict(found["bad"]) if found["plan"] == self._plan else None

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write the state after an epoch; the one before it is kept."""
        if self._last.exists():
            with writing(self._previous):
                move(self._last, self._previous)
        write_checkpoint(self._last, tensors, {**facts, "plan": self._plan})

    def load(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The newest whole state, or None when there is none at all.

        A damaged last state is passed over, with a warning, for the previous one. Raises StateError when no whole one
        is left, or when it is of another plan.
        """
        there = [path for path in (self._last, self._previous) if path.exists()]
        for path in there:
            try:
                return self._read(path)
            except _DamagedError as error:
                _log.warning("%s; looking for the state before it", error)
        if there:
            raise StateError(f"no whole training state in {self.checkpoint.parent}; {write_anew(self.checkpoint)}")
        return None

    def _read(self, path: Path) -> tuple[Arrays, dict[str, Any]]:
        try:
            arrays, facts = read_checkpoint(path)
        except UnreadableError:
            raise
        except (InputError, StateError) as error:
            raise _DamagedError(f"{path} is damaged ({error})") from None
        plan = facts.get("plan", {})
        changes = [
            f"{name} {plan.get(name)} -> {value}" for name, value in self._plan.items() if plan.get(name) != value
        ]
        if changes:
            raise StateError(
                f"{path} is of another training ({'; '.join(changes[:6])}); undo the change or choose another output"
            )
        return arrays, facts


class _DamagedError(StateError):
    """A file of ours that cannot be read whole."""

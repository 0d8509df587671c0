"""The two records of a search: a proposal that an optimizer asks to be scored, and the trial that came of it."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from finegpr.mixture import choice_from_record
from finegpr.subset import Subset

Status = Literal["scored", "duplicate", "failed", "infeasible"]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A subset to be scored; ``id`` is unique within its optimizer."""

    id: int
    subset: Subset


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One scored proposal, with deterministic fields only.

    ``score`` is the objective's, in its unit and direction; None when the evaluation failed or gave no finite number
    (``failed``) or the subset does not fit the budget (``infeasible``). A ``duplicate`` has the score of the first
    trial of its subset, which may be None. ``loss`` is what the optimizer was told: finite, lower is better.
    """

    index: int
    generation: int
    proposal: int
    subset: Subset
    status: Status
    score: float | None
    loss: float

    def to_record(self) -> dict[str, Any]:
        """JSON-ready fields in a fixed order."""
        return {
            "index": self.index,
            "generation": self.generation,
            "proposal": self.proposal,
            "status": self.status,
            "score": self.score,
            "loss": self.loss,
            "subset": self.subset.to_record(),
        }

    @classmethod
    def from_record(cls, record: object) -> "Trial":
        """Read what ``to_record`` gave. Raises ValueError saying which field is wrong."""
        if not isinstance(record, dict) or set(record) != _FIELDS:
            raise ValueError(f"a trial has the fields {', '.join(sorted(_FIELDS))}")
        for name in ("index", "generation", "proposal"):
            if type(record[name]) is not int or record[name] < 0:
                raise ValueError(f"{name} should be a count, got {record[name]!r}")
        if record["status"] not in get_args(Status):
            raise ValueError(f"status should be one of {', '.join(get_args(Status))}, got {record['status']!r}")
        if type(record["loss"]) is not float or not isinstance(record["score"], float | None):
            raise ValueError(f"score and loss should be numbers, got {record['score']!r} and {record['loss']!r}")
        if not isinstance(record["subset"], dict):
            raise ValueError(f"subset should be an object, got {record['subset']!r}")
        return cls(**{**record, "subset": choice_from_record(record["subset"])})


_FIELDS = frozenset(Trial.__dataclass_fields__)

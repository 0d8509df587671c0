"""Which queries count towards a score, and why the others do not: known from the labels alone."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from finegpr.catalog import Catalog
from finegpr.errors import InputError
from finegpr.parts import require_people

ADVICE = (
    "give the cameras (of a table, camera_column), or say cameras: ignore of the target, in `aost index` by --set "
    "cameras=ignore: then matches of the query's own camera count too"
)


@dataclass(frozen=True, kw_only=True)
class Queries:
    """``num_query`` queries, of which ``num_valid`` are scored; ``num_no_match`` have no image of their person in the
    gallery, ``num_same_camera`` only images of their own camera. ``cameras_ignored``: see ``ignore_cameras``.
    """

    num_query: int
    num_valid: int
    num_no_match: int
    num_same_camera: int
    cameras_ignored: bool = False

    def to_record(self) -> dict[str, int | bool]:
        """The fields by name; ``cameras_ignored`` only where they are."""
        record = asdict(self)
        return record if self.cameras_ignored else {key: record[key] for key in record if key != "cameras_ignored"}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Queries | None":
        """What ``to_record`` gave, other fields passed over; None where it is not there."""
        known = {field.name: int(record[field.name]) for field in fields(cls) if field.name in record}
        ignored = bool(known.pop("cameras_ignored", False))
        return cls(**known, cameras_ignored=ignored) if len(known) == len(fields(cls)) - 1 else None

    @property
    def sentence(self) -> str | None:
        """What should be known of a score of these queries; None where all of them count, by their cameras."""
        said = []
        if self.num_valid < self.num_query:
            reasons = [f"{self.num_no_match} have no match"] if self.num_no_match else []
            if self.num_same_camera:
                more = "only" if reasons else "have a match only"
                reasons.append(f"{self.num_same_camera} {more} by the same camera")
            said.append(f"mAP of {self.num_valid} of {self.num_query} queries: {', '.join(reasons)}")
        if self.cameras_ignored:
            said.append(
                "cameras are ignored: matches that the query's own camera may have seen count, so the mAP cannot be "
                "compared with one that leaves them out"
            )
        return "; ".join(said) or None


def count_queries(query: Catalog, gallery: Catalog) -> Queries:
    """The queries that can be scored on ``gallery``, by the rule of ``evaluate_ranking``.

    Raises InputError where no camera is known of images that a match hangs on, or where no query has a match;
    StateError as ``require_people``.
    """
    require_people(query)
    if not len(query) or not len(gallery):
        raise InputError(
            f"there is nothing to evaluate: {query.title} has {len(query)} query and {len(gallery)} gallery images in "
            "the chosen parts; scoring needs both"
        )
    _require_cameras(query, gallery)
    people = gallery.frame[gallery.identities > 0]
    seen_by = people.groupby("identity")["camera"].agg(["min", "max"])
    identity, camera = query.frame["identity"], query.frame["camera"].to_numpy()
    matched = identity.isin(seen_by.index).to_numpy()
    first, last = seen_by.reindex(identity[matched]).to_numpy().T
    is_valid = matched.copy()
    is_valid[matched] = (first != camera[matched]) | (last != camera[matched])
    queries = Queries(
        num_query=len(query),
        num_valid=int(is_valid.sum()),
        num_no_match=int((~matched).sum()),
        num_same_camera=int((matched & ~is_valid).sum()),
        cameras_ignored=bool((camera < 0).any()),
    )
    if not queries.num_valid:
        raise InputError(_no_query(queries, query, gallery))
    return queries


def _no_query(queries: Queries, query: Catalog, gallery: Catalog) -> str:
    if not queries.num_same_camera:
        return (
            f"none of {queries.num_query} queries of {query.title} has a match among {len(gallery)} gallery images: no "
            "person is in both; is this the column of persons, and the gallery of these queries?"
        )
    cameras = sorted(set(query.frame["camera"]) | set(gallery.frame["camera"]))
    return (
        f"none of {queries.num_query} queries of {query.title} has a match among {len(gallery)} gallery images: "
        f"{queries.num_no_match} have none at all, {queries.num_same_camera} only by the same camera (cameras "
        f"{', '.join(map(str, cameras[:8]))}); the usual cause is wrong camera labels; {ADVICE}"
    )


def _require_cameras(query: Catalog, gallery: Catalog) -> None:
    """Two images of unknown camera (0) were not seen by one camera, nor by two."""
    shared = np.intersect1d(query.identities, gallery.identities)
    unknown = [
        int(((side.frame["camera"] == 0) & side.frame["identity"].isin(shared[shared > 0])).sum())
        for side in (query, gallery)
    ]
    if any(unknown):
        raise InputError(
            f"{query.title} has no camera for {unknown[0]} of {len(query)} query and {unknown[1]} of {len(gallery)} "
            f"gallery images with a match, and a match of the query's own camera is not to count; {ADVICE}"
        )


def ignore_cameras(catalog: Catalog) -> Catalog:
    """The catalog with a camera of its own, below 0, for every image: no match is left out for its camera."""
    own: pd.Series[int] = pd.Series(-1 - np.arange(len(catalog)), index=catalog.frame.index, dtype=np.int64)
    return replace(catalog, frame=catalog.frame.assign(camera=own))

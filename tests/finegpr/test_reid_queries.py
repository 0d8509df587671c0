"""Which queries a score is of, and why the others do not count."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finegpr.catalog import Catalog
from finegpr.errors import InputError, StateError
from finegpr.layouts.listing import PART_TYPE, build_frame, rejections
from finegpr.reid.queries import Queries, count_queries, ignore_cameras
from finegpr.reid.ranking import evaluate_ranking

Seen = list[tuple[int, int]]


def side(part: str, seen: Seen) -> Catalog:
    """Images of (person, camera)."""
    people, cameras = np.array(seen, dtype=np.int64).reshape(-1, 2).T
    frame = build_frame(
        pa.array([f"{part}{row}.jpg" for row in range(len(seen))], pa.string()),
        identity=people,
        camera=cameras,
        part=pd.Categorical([part] * len(seen), dtype=PART_TYPE),
    )
    root = Path("/nowhere")
    return Catalog(frame=frame, root=root, title="T", layout="table", attributes=(), rejected=rejections())


def counted(query: Seen, gallery: Seen) -> Queries:
    return count_queries(side("query", query), side("gallery", gallery))


images = st.tuples(st.integers(1, 5), st.integers(1, 3))


@given(st.lists(images, min_size=1), st.lists(st.one_of(images, st.sampled_from([(-1, 1), (0, 2)])), min_size=1))
def test_the_same_queries_count_as_in_a_ranking(query: Seen, gallery: Seen) -> None:
    distances = np.zeros((len(query), len(gallery)))
    (people, cameras), (gallery_people, places) = np.array(query).T, np.array(gallery).T
    try:
        ranking = evaluate_ranking(distances, people, gallery_people, cameras, places)
    except InputError:
        with pytest.raises(InputError, match="has a match"):
            counted(query, gallery)
        return
    found = counted(query, gallery)
    assert found.num_valid == ranking.num_valid
    assert found.num_no_match == (~np.isin(people, gallery_people)).sum()
    assert found.num_valid + found.num_no_match + found.num_same_camera == found.num_query == len(query)


def test_what_is_said_of_queries_that_do_not_count() -> None:
    queries: Seen = [(1, 1), *[(10 + more, 1) for more in range(6)], (2, 1), (2, 1), (3, 2)]
    found = counted(queries, [(1, 2), (2, 1), (3, 2), (0, 1)])
    assert found.sentence == "mAP of 1 of 10 queries: 6 have no match, 3 only by the same camera"
    assert Queries.from_record({**found.to_record(), "mAP": 0.5}) == found
    assert counted([(1, 1)], [(1, 2)]).sentence is None
    assert counted([(1, 1), (2, 1)], [(1, 2), (2, 1)]).sentence is not None
    with pytest.raises(InputError, match="no person is in both"):
        counted([(1, 1), (2, 1)], [(3, 1)])
    with pytest.raises(InputError, match="1 have none at all, 1 only by the same camera.*cameras: ignore"):
        counted([(1, 1), (2, 1)], [(2, 1)])
    with pytest.raises(StateError, match="in its part query"):
        counted([(0, 1), (2, 1)], [(2, 2)])


def test_unknown_cameras_are_neither_the_same_nor_others_and_may_be_ignored() -> None:
    for query, gallery, said in (
        ([(1, 0), (2, 0)], [(1, 0), (2, 0), (3, 0)], "2 of 2 query and 2 of 3 gallery"),
        ([(1, 0), (2, 1)], [(1, 2), (2, 2)], "1 of 2 query and 0 of 2 gallery"),
        ([(1, 1), (2, 1)], [(1, 0), (2, 2)], "0 of 2 query and 1 of 2 gallery"),
    ):
        with pytest.raises(InputError, match=f"no camera for {said}.*camera_column.*cameras=ignore"):
            counted(query, gallery)
        whole = side("query", [*query, *gallery])
        whole.frame["part"] = pd.Categorical(["query"] * len(query) + ["gallery"] * len(gallery), dtype=PART_TYPE)
        ignored = ignore_cameras(whole)
        found = count_queries(ignored.part("query"), ignored.part("gallery"))
        assert (found.num_valid, found.cameras_ignored) == (2, True)
        assert "cameras are ignored" in (found.sentence or "")
    # Strangers and distractors are wrong answers, whoever saw them.
    assert counted([(1, 1)], [(1, 2), (2, 0), (0, 0), (-1, 0)]).sentence is None

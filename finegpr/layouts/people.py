"""Who may be in which part of a catalog: nobody is trained on and tested on."""

from itertools import combinations

import numpy as np
import pandas as pd

from finegpr.errors import InputError
from finegpr.layouts.listing import first

# Identities of these must differ, except junk (-1) and distractors (0).
DISJOINT = (("train",), ("query", "gallery"), ("validation_query", "validation_gallery"))


def refuse_shared(frame: pd.DataFrame, *, root: object) -> None:
    """Raises InputError where a person is in more than one of training, test and validation, with two of the images."""
    if (frame["part"] == "train").all():
        return
    people = frame[frame["identity"] > 0]
    images = [people[people["part"].isin(group)] for group in DISJOINT]
    for (one, ones), (other, others) in combinations(zip(DISJOINT, images, strict=True), 2):
        shared = np.intersect1d(ones["identity"], others["identity"])
        if len(shared):
            here, there = (side["path"][side["identity"] == shared[0]].iloc[0] for side in (ones, others))
            raise InputError(
                f"{root}: {len(shared)} identities are in both {'/'.join(one)} and {'/'.join(other)}: "
                f"{first(shared.tolist())}; {first([here])} and {first([there])} show one person; scores would be "
                "inflated, keep each identity in one of them"
            )

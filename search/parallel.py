"""Scoring a generation on several threads, such that nobody can tell from the journal how many there were."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from finegpr.arrays import Floats
from finegpr.subset import Subset
from search.loop import Evaluate

PIECE = 16  # subsets; of fixed size, because the last bits of a matrix product depend on its shape


def in_parallel(evaluate: Evaluate, *, workers: int) -> Evaluate:
    """``evaluate`` on pieces of PIECE subsets, ``workers`` at a time; the scores are the same for any number of them.

    They are threads: scoring is NumPy, which leaves the interpreter free. One worker scores the same pieces in turn.
    """
    if workers < 1:
        raise ValueError(f"workers should be at least 1, got {workers}")

    def score(subsets: list[Subset]) -> Floats:
        pieces = [subsets[start : start + PIECE] for start in range(0, len(subsets), PIECE)]
        if workers == 1 or len(pieces) < 2:
            scores = [evaluate(piece) for piece in pieces]
        else:
            with ThreadPoolExecutor(min(workers, len(pieces))) as pool:
                scores = list(pool.map(evaluate, pieces))
        return np.concatenate([np.empty(0), *scores])

    return score

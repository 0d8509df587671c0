"""Subsets under a budget: the space of them, what bounds it, and weights in place of in or out."""

from search.space.mixture import MixtureSpace, make_space
from search.space.space import SCENE, Budget, Space, SpaceConfig

__all__ = ["SCENE", "Budget", "MixtureSpace", "Space", "SpaceConfig", "make_space"]

"""The constants of SPSO 2006 to 2011 (Clerc 2012, Standard Particle Swarm Optimisation)."""

from math import log

INERTIA = 1 / (2 * log(2))
"""w, what a particle keeps of its speed in a generation: 0.7213."""
PULL = 1 / 2 + log(2)
"""c, the largest pull to the own best, and to that of the neighbourhood: 1.1931."""

"""The constants of standard particle swarm optimisation (Clerc 2006; SPSO 2011), named once for every swarm here."""

from math import log

INERTIA = 1 / (2 * log(2))
"""w, what a particle keeps of its speed in a generation: 0.7213."""
PULL = 1 / 2 + log(2)
"""c, the largest pull to the own best, and to that of the neighbourhood: 1.1931."""

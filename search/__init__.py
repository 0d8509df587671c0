"""The decision: objectives, surrogate, optimizers, journal and comparison. Knows no ray."""

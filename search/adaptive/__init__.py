"""Adaptive sampling: which images to measure next."""

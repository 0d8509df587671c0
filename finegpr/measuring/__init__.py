"""Measuring: images through a network, to distances and sketches, shard by shard."""

"""Pixels: from files to batches in the memory of a processor or a GPU."""

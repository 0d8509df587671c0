"""The delivery: Ray and the command line. The only ring that imports ray."""

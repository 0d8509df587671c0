"""A small pedestrian world in exactly FineGPR's layout, and a photo-like target with known truth."""

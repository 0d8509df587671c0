"""The domain: catalogs, subsets, perceptual distance, re-identification and the renderer. Knows no ray."""

"""What a search and a comparison mean: why, how sure, who, in records and words."""

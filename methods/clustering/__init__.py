"""Clusterings: they know training features (labels if declared) and a seed; no images and no OOD data."""

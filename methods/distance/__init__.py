"""Distances: they know training features and clusters; no labels, no OOD data, no thresholds."""

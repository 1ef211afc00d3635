"""Thresholds: they know ID reference scores; no test scores, features or labels."""

"""Baselines: they know a classifier's logits, the features behind them and training labels; no OOD data."""

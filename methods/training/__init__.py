"""Trainings: they know a batch, their own state and torch; no images, detectors, OOD test data, optimiser or device."""

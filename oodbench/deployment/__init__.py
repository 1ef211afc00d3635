"""A detector that leaves the harness: one cell of a study as a folder, which scores images without the study."""

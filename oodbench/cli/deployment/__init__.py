"""Commands on a detector that leaves the harness: export one cell of a study, predict with it."""

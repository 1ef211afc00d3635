"""Commands on a study that runs on a cluster."""

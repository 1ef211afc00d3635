"""Engines: a study at work on more than one machine. A job is a command line; results travel through the store."""

"""The user's door: the command line. It alone prints."""

"""The author's door: the checks that a plugin has to pass, and templates to start from."""

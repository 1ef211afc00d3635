"""The methods: a folder is an axis, a file is a plugin, its stem is its name. The contracts are in oodbench/api.py."""

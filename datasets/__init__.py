"""Data sets: they know files, splits and class labels; not their role, transforms or methods."""

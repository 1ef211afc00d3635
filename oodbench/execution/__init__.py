"""A study at work: what is missing is trained, embedded, scored and written. It may import all wings but the doors."""

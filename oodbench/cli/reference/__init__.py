"""What oodbench knows of itself, as its own code says it: plugins, the keys of a study, the columns of rows."""

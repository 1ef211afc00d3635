"""From files to images: downloads, prepared sets, duplicates, files of features."""

"""What a plugin may import beside `oodbench.api`: arithmetic, files of images, seeds. It imports only contracts."""

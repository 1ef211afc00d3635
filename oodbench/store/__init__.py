"""What lies on disk: artifacts, rows, and where they are from. It knows bytes and tables; no torch, no methods."""

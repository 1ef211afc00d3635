"""A study's claims held against its rows."""

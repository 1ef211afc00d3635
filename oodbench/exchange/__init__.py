"""Results that people send each other: submissions, and a board of many of them."""

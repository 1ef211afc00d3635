"""From rows to figures: what is drawn, and how it looks on paper; no torch."""

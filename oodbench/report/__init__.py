"""From rows to tables: leaderboards, verdicts, what was published. No torch."""

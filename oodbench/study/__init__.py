"""From a study's file to its cells: settings, plugins by name, the grid. No torch."""

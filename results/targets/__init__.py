"""Published numbers, each with its source: one CSV per source. `oodbench tables STUDY --against targets` reads them."""

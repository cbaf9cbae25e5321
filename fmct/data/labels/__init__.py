"""Where labels come from: one module per source."""

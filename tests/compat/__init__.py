"""Real clients against real clusters: what people type, and what their libraries send."""

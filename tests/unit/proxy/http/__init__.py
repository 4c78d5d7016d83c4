"""HTTP pieces that both dialects share."""

"""Training and sampling in several processes."""

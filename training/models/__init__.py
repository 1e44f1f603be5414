"""Networks that are used in training only."""

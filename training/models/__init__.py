"""The networks that are trained, and those that only judge."""

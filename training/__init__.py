"""The trainer of SCSNet."""

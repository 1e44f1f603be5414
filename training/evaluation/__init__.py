"""Metrics, the protocol of the tables, reports and the validation during a run."""

"""The command line: options, what they mean, and one file per command."""

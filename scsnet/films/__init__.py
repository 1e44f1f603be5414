"""Films: their frames in and out of files (PyAV), and colours that stay from frame to frame."""

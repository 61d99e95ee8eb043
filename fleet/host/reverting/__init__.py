"""The way back: a snapshot of the host, and a diff from now to it."""

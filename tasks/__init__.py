"""fleet's Nornir tasks: each module has one, of its own name. A project's own replace them."""

"""SSH: connections that Nornir shares, and the runner that drives them."""

"""The kernel as fleet reads it: the one door, dumps in the words of ip(8), who holds what."""

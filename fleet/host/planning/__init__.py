"""From a state and an observation to a plan: diff, order, impact, digest, ledger."""

"""The dead-man protocol: from PREPARED to COMMITTED, or back."""

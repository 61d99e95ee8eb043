"""Traffic shaping: limits as records, as messages and as words."""

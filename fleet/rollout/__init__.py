"""The engine: plans, rollouts in waves, gates, settling; audits and status of many hosts."""

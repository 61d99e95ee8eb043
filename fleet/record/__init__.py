"""What was done: runs, plans, outcomes, phases and confirms, in SQLite or PostgreSQL."""

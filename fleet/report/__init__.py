"""What fleet tells an operator: plans, audits and runs, as text and as JSON."""

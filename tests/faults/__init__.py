"""Attacks on the transaction: a fault is a place, an action and a scenario, judged from outside."""

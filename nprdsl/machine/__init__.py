"""Forks, joins and budgets: what a generation does next, without any engine."""

"""Recipes: functions that return a full configuration. A docstring holds the claim, its cost and what to expect."""

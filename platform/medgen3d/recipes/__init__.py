"""Recipes: functions that need several verbs at once, or start Ray."""

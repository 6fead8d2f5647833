"""Whole experiments: the demo, and the report of what ran."""

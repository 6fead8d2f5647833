"""The data card of an episode store: a page for people who would rather look than read."""

"""The demo: the whole job on data it collects itself."""

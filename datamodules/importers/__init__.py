"""Importers: one module for each format of other projects' data, and the frame that they share."""

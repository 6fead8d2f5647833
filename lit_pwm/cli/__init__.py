"""The command line. Verbs check their arguments before they import torch, lightning or dm_control."""

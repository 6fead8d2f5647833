"""Sweeps: grids of command lines, run cell by cell, and condensed to small records."""

from lit_pwm.experiments.sweep.cells import Cell, cells_of
from lit_pwm.experiments.sweep.plan import Stage, Sweep
from lit_pwm.experiments.sweep.sweep_file import read_sweep

__all__ = ["Cell", "Stage", "Sweep", "cells_of", "read_sweep"]

"""Tasks that the DeepMind Control Suite lacks, one module per domain: TD-MPC2's, stochastic ones, and ones that fail.

Each module holds a dm_control `SUITE` and builds on the stock domain's `Physics` and model. Rewards are per control
step and lie in [0, 1].
"""

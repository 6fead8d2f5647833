"""Tasks that the DeepMind Control Suite lacks, one module per domain: those that TD-MPC2 added, and stochastic ones.

Each module holds a dm_control `SUITE` and builds on the stock domain's `Physics` and model. Rewards are per control
step and lie in [0, 1].
"""

"""The tasks that TD-MPC2 added to the DeepMind Control Suite, one module per domain.

Each module holds a dm_control `SUITE` and builds on the stock domain's `Physics` and model. Rewards are per control
step and lie in [0, 1].
"""

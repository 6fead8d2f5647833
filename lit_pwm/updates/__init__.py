"""What both LightningModules' updates share."""

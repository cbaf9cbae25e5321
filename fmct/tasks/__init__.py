"""LightningModules: wiring and logging, nothing else."""

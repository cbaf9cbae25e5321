"""Configuration, trainer, optimizer, checkpoints and weight packages."""

"""Backbones, decoders, heads and the weight packages they travel in."""

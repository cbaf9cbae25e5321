"""Metrics, confidence intervals and the report."""

"""Metrics, logs and health, as operators see them."""

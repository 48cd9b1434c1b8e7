"""Scaling laws for training on repeated data: published laws and our own, with fits and cross-validation."""

"""Train language models on partly repeated data: studies, models, training, probes and run directories."""

__version__ = "0.1.0"

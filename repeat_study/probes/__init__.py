"""Probes: the measurements that are made on a model at every evaluation, each with a null to compare it with."""

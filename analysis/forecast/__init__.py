"""Forecasts for a planned run by each law: numbers, tables for the console, and a figure."""

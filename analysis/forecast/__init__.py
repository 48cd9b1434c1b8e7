"""Forecast the cost of repetition for a planned run with each law, and present it as a table, a figure or JSON."""

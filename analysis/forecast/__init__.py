"""What `predict` answers: a plan's cost by each law, as tables, curves and a figure."""

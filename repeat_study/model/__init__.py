"""The decoder with its leading lanes axis, its loss, and what the hardware can do."""

"""The decoder with a leading lanes axis, its loss, and what the machine under it can do."""

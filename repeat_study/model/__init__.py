"""The decoder and its loss, and functions that query the hardware."""

"""The decoder, its loss function, and queries about the hardware."""

"""Laws of loss under repetition: the published ones and ours, fitted, compared and asked."""

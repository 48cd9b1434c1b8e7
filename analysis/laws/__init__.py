"""Laws of the loss of repeated training: the published ones and this study's own, fitted and cross-validated."""

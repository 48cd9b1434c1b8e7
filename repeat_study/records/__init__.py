"""The run directory, the list of metrics and TensorBoard: the contract between training and analysis."""

"""The contract between training and analysis: run directories, the list of metrics, TensorBoard."""

"""The interface between training and analysis: run directories, the list of metrics, and TensorBoard."""

"""Export trained models as folders in Hugging Face's format, and load these folders into TransformerLens."""

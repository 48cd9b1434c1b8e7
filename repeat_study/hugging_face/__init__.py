"""Read models from folders in Hugging Face's format, without running code from them and without network access."""

"""Text to tokens to mixture: corpora, tokenizers, token stores and the repeated-data mixture. Knows no models."""

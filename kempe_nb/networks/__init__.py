"""The architectures of the book, each once."""

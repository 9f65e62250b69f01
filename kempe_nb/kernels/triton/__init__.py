"""Device code in Triton, under the names of the operations; imported only where it runs."""

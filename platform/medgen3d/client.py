"""A typed client of the HTTP service; it knows nothing of the rest of the package."""

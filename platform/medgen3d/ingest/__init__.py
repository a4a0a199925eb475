"""Raw volumes in, a verified prepared set out."""

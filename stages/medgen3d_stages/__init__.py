"""The generative stages in pure torch: no cluster, no files, no registry."""

"""Stage 1: label masks from noise and known slices."""

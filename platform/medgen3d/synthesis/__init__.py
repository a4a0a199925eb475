"""A pipeline in, synthetic image and mask pairs out."""

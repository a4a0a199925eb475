"""Measures of a single mask or pair; gates and evaluation use the same ones."""

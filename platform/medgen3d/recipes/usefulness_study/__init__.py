"""The usefulness study: one segmenter, trained on real cases, on synthetic pairs and on both, tested on real cases."""

"""Training: a prepared set in, a trained bundle out; one loop for every stage."""

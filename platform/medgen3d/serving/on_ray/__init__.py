"""The service as one Ray Serve application: an ingress that takes jobs, and a deployment per stage of the chain."""

"""Networks at work: continuous batching on one device, a cache of models, the catalog of pipelines."""

"""Jobs that need several verbs, and the one place that starts Ray."""

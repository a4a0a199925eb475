"""The experiment's configuration: its schema, its loader and the shipped presets."""

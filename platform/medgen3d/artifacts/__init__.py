"""The files that verbs exchange: schema, writer and reader of each."""

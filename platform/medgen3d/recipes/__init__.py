"""What needs several verbs at once."""

"""Operators: what each means and how it lowers to native steps; one operator or family per file."""

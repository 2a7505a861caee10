"""Loss tables: their columns, where they come from, and which of their rows are fitted."""

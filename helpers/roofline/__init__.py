"""Which of arithmetic and memory bounds an operation: bounds from tables, and what was measured beside them."""

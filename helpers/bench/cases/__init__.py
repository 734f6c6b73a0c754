"""Claims about policies, each with the workload that shows it and the numbers that it gives."""

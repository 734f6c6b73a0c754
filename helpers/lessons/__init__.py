"""What a page asks of its reader: verdicts on answers, and numbers that the text takes from the cells."""

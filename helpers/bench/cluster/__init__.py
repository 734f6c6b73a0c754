"""What a live cluster must show: the same answers whatever moved where, and no request lost whatever failed."""

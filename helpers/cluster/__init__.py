"""Live workers as processes, the front end that drives them, KV that moves between them, and an endpoint."""

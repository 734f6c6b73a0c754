"""A discrete-event cluster: the routers and schedulers of the course on workers whose steps take predicted time."""

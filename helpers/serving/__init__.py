"""One experiment, one call: the same question on the simulator, the engine or a recording."""

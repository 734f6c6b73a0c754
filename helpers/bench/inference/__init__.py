"""One engine from a synchronous loop with static batches to the one that serves, measured rung by rung."""

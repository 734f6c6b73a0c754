"""The order of events at one time, stated once: they all come before the step that starts then.

News of steps that have ended, transfers that have arrived, disturbances, telemetry samples, arrivals,
and last the workers whose next step is to start.
"""

EMISSION, TRANSFER, DISTURBANCE, TELEMETRY, ARRIVAL, STEP = range(6)
NEVER = float("inf")

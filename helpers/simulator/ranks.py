"""The order of events at one time, stated once: they all come before the step that starts then.

News of steps that have ended, transfers that have arrived, disturbances, telemetry samples, changes of
the fleet, arrivals, and last the workers whose next step is to start.
"""

EMISSION, TRANSFER, DISTURBANCE, TELEMETRY, FLEET, ARRIVAL, STEP = range(7)
NEVER = float("inf")

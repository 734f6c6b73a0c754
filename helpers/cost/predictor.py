"""Predicted latencies of a request on a worker: what a policy asks before it decides."""

from dataclasses import dataclass
from math import inf

from helpers.cost.iteration import CostModel
from helpers.cost.transfer import Link
from helpers.errors import InputError
from helpers.policies.view import WorkerView
from helpers.workload.request import Request

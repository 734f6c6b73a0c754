"""Hybrid Serving, measured: the helpers behind the course.

Data flows one way: workload -> policy -> scheduler -> backend -> timelines -> metrics -> figure.
The portable core (see CONTRIBUTING.md) imports the standard library only, so that the same
source runs in JupyterLab, in the tests, on a GPU machine and inside a rendered page.
"""

__version__ = "0.1.0"

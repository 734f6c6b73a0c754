"""The endpoint: a live cluster that speaks the HTTP interface that clients and load generators know."""

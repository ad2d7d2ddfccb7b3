"""The worker: a front that owns sockets, sessions and queue, and an executor that computes with one engine."""

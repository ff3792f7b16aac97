"""Chooses a node for each pod: filters and scores over columns, preemption, the queue and the explanation.

It refuses to know the API server, the clock and chance: `now` and `rng` are parameters, a binding is a value.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/scheduling-framework/
"""

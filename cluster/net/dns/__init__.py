"""Cluster DNS as values: the wire, the records that services make, and the answer to a question.

Source: https://github.com/kubernetes/dns/blob/master/docs/specification.md
"""

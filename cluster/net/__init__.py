"""Decides what the network does: which endpoints a service leads to, the rules for it, DNS answers, routes.

It knows no socket, kernel or clock; rules and answers are values that others carry out.
Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
"""

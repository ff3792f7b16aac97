"""Objects and files that a cluster is deployed with: bootstrap, examples, service units, dashboards."""

"""The kubelet's decisions: what to do next for a pod, given what the runtime shows."""

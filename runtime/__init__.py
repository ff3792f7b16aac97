"""The hands: containers, images, cgroups, mounts, namespaces, kernel rules."""

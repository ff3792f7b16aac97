#!/bin/sh
# Starts a cluster, deploys the example, shows its rollout and says what to try next.
set -eu
cd "$(dirname "$0")/.."
steer=.venv/bin/steer

$steer up
$steer apply -f deploy/examples/web.yaml
$steer rollout status deployment/web
$steer get deployments,pods,services
cat <<TXT

The cluster runs. Try next:
  source .venv/bin/activate
  curl http://127.0.0.1:30080/                          # the Service's NodePort
  steer set image deployment/web web=localhost/web:v2   # roll to a new version
  steer rollout undo deployment/web                     # and back
  steer scale deployment/web --replicas 5
  export KUBECONFIG=\$(steer kubeconfig --path); kubectl get pods -o wide
  steer status                                          # every actor of the control plane
  steer down                                            # stop it; add --delete-data to forget it
TXT

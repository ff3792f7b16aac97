"""The optional scalars whose zero value Kubernetes does not tell from their absence: `""`, `0` and `false`.

Its types hold these by value and mark them `omitempty`; the other optional scalars are pointers, and their zero values
are kept (`replicas: 0`). No schema tells the two apart, so this is a table: of pods, workloads, Services, nodes and
the metadata of all objects.

Source: the tags of k8s.io/api/*/types.go, as kubectl's `set --local` shows them
"""

from __future__ import annotations

_TABLE = """
[io.k8s.api.apps.v1]
DaemonSetCondition: message reason
DaemonSetSpec: minReadySeconds
DaemonSetStatus: numberAvailable numberUnavailable observedGeneration updatedNumberScheduled
DaemonSetUpdateStrategy: type
DeploymentCondition: message reason
DeploymentSpec: minReadySeconds paused
DeploymentStatus: availableReplicas observedGeneration readyReplicas replicas unavailableReplicas updatedReplicas
DeploymentStrategy: type
ReplicaSetCondition: message reason
ReplicaSetSpec: minReadySeconds
ReplicaSetStatus: availableReplicas fullyLabeledReplicas observedGeneration readyReplicas
StatefulSetCondition: message reason
StatefulSetPersistentVolumeClaimRetentionPolicy: whenDeleted whenScaled
StatefulSetSpec: minReadySeconds podManagementPolicy
StatefulSetStatus: currentReplicas currentRevision observedGeneration readyReplicas updateRevision updatedReplicas
StatefulSetUpdateStrategy: type
[io.k8s.api.batch.v1]
CronJobSpec: concurrencyPolicy
JobCondition: message reason
JobStatus: active completedIndexes failed succeeded
[io.k8s.api.core.v1]
AWSElasticBlockStoreVolumeSource: fsType partition readOnly
AzureFileVolumeSource: readOnly
CephFSVolumeSource: path readOnly secretFile user
CinderVolumeSource: fsType readOnly
ConfigMapEnvSource: name
ConfigMapKeySelector: name
ConfigMapProjection: name
ConfigMapVolumeSource: name
Container: image imagePullPolicy stdin stdinOnce terminationMessagePath terminationMessagePolicy tty workingDir
ContainerPort: hostIP hostPort name protocol
ContainerStateTerminated: containerID message reason signal
ContainerStateWaiting: message reason
ContainerStatus: containerID
EmptyDirVolumeSource: medium
EnvFromSource: prefix
EnvVar: value
EphemeralContainer: image imagePullPolicy stdin stdinOnce targetContainerName terminationMessagePath
    terminationMessagePolicy tty workingDir
FCVolumeSource: fsType readOnly
FlexVolumeSource: fsType readOnly
FlockerVolumeSource: datasetName datasetUUID
GCEPersistentDiskVolumeSource: fsType partition readOnly
GitRepoVolumeSource: directory revision
GlusterfsVolumeSource: readOnly
HTTPGetAction: host path scheme
ISCSIVolumeSource: chapAuthDiscovery chapAuthSession fsType iscsiInterface readOnly
ImageVolumeSource: pullPolicy reference
LoadBalancerIngress: hostname ip
LocalObjectReference: name
ModifyVolumeStatus: targetVolumeAttributesClassName
NFSVolumeSource: readOnly
NamespaceStatus: phase
NodeCondition: message reason
NodeSpec: externalID podCIDR providerID unschedulable
ObjectFieldSelector: apiVersion
ObjectReference: apiVersion fieldPath kind name namespace resourceVersion uid
PersistentVolumeClaimCondition: message reason
PersistentVolumeClaimSpec: volumeName
PersistentVolumeClaimStatus: phase
PersistentVolumeClaimVolumeSource: readOnly
PhotonPersistentDiskVolumeSource: fsType
PodCondition: message observedGeneration reason
PodDNSConfigOption: name
PodSpec: dnsPolicy hostIPC hostNetwork hostPID hostname nodeName priorityClassName restartPolicy schedulerName
    serviceAccount serviceAccountName subdomain
PodStatus: hostIP message nominatedNodeName observedGeneration phase podIP qosClass reason resize
PortworxVolumeSource: fsType readOnly
Probe: failureThreshold initialDelaySeconds periodSeconds successThreshold timeoutSeconds
QuobyteVolumeSource: group readOnly tenant user
RBDVolumeSource: fsType keyring pool readOnly user
ReplicationControllerCondition: message reason
ReplicationControllerSpec: minReadySeconds
ReplicationControllerStatus: availableReplicas fullyLabeledReplicas observedGeneration readyReplicas
ResourceClaim: request
ResourceFieldSelector: containerName
ResourceHealth: health
SELinuxOptions: level role type user
ScaleIOVolumeSource: fsType protectionDomain readOnly sslEnabled storageMode storagePool volumeName
Secret: type
SecretEnvSource: name
SecretKeySelector: name
SecretProjection: name
SecretVolumeSource: secretName
ServiceAccountTokenProjection: audience
ServicePort: name nodePort protocol
ServiceSpec: clusterIP externalName externalTrafficPolicy healthCheckNodePort loadBalancerIP publishNotReadyAddresses
    sessionAffinity type
StorageOSVolumeSource: fsType readOnly volumeName volumeNamespace
TCPSocketAction: host
Taint: value
Toleration: effect key operator value
VolumeMount: readOnly subPath subPathExpr
VolumeMountStatus: readOnly
VsphereVirtualDiskVolumeSource: fsType storagePolicyID storagePolicyName
[io.k8s.api.rbac.v1]
Subject: apiGroup namespace
[io.k8s.apimachinery.pkg.apis.meta.v1]
Condition: observedGeneration
ManagedFieldsEntry: apiVersion fieldsType manager operation subresource
ObjectMeta: generateName generation name namespace resourceVersion selfLink uid
"""


def _read(table: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    group = name = ""
    for line in table.split("\n"):
        if line.startswith("["):
            group = line.strip("[]")
        elif line:
            head, colon, fields = line.partition(":")
            name = head if colon else name
            known = found.get(f"{group}.{name}", frozenset())
            found[f"{group}.{name}"] = known | frozenset((fields if colon else line).split())
    return found


#: definition to the names of such fields
ZERO_MEANS_ABSENT = _read(_TABLE)

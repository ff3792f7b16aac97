"""What the columns of built-in kinds are said to show: a sentence, or the description of a field in the schema.

Source: k8s.io/kubernetes/pkg/printers/internalversion/printers.go, k8s.io/apiserver/pkg/registry/rest/table.go
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

#: the description of a field, given the name of its definition and its own; empty where there is none
Documented = Callable[[str, str], str]


def undocumented(_definition: str, _field: str) -> str:
    """Knows nothing of fields."""
    return ""


_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
#: columns that show metadata, of whatever kind
_OF_METADATA = {"Name": "name", "Age": "creationTimestamp", "Created At": "creationTimestamp"}
_TEMPLATE = {
    "Containers": "Names of each container in the template.",
    "Images": "Images referenced by each container in the template.",
}
_READY = "Number of the pod with ready state"
_HOOKS = {"Webhooks": "Webhooks indicates the number of webhooks registered in this configuration"}
_PARAM_KIND = "ParamKind specifies the kind of resources used to parameterize this policy"
#: as Kubernetes spells them
_POLICY_BINDING = {
    "PolicyName": "PolicyName indicates the policy definition which the policy binding binded to",
    "ParamRef": "ParamRef indicates the param resource which sets the configration param",
}


def _fields(definition: str, **columns: str) -> dict[str, str]:
    """Columns, with underscores for spaces in their names, that show fields of a definition."""
    return {column.replace("_", " "): f"@{definition} {field}" for column, field in columns.items()}


def _bound(whose: str, definition: str) -> dict[str, str]:
    shown = {column: f"{column} in the {whose}" for column in ("Users", "Groups", "ServiceAccounts")}
    return {**_fields(definition, Role="roleRef"), **shown}


_EVENT = {
    **_fields(
        "core.v1.Event", Last_Seen="lastTimestamp", Type="type", Reason="reason", Object="involvedObject",
        Source="source", Message="message", First_Seen="firstTimestamp", Count="count",
    ),
    **_fields("core.v1.ObjectReference", Subobject="fieldPath"),
}  # fmt: skip
#: by (group, kind), of each column: a sentence, or after an @ a definition and the field of it
_DESCRIPTIONS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("", "ComponentStatus"): {
        column: f"{column} of the component conditions" for column in ("Status", "Message", "Error")
    },
    ("", "ConfigMap"): _fields("core.v1.ConfigMap", Data="data"),
    ("", "Endpoints"): _fields("core.v1.Endpoints", Endpoints="subsets"),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("", "Namespace"): {"Status": "The status of the namespace"},
    ("", "Node"): {
        "Status": "The status of the node",
        "Roles": "The roles of the node",
        **_fields("core.v1.NodeSystemInfo", Version="kubeletVersion"),
        **dict.fromkeys(("Internal-IP", "External-IP"), "@core.v1.NodeStatus addresses"),
        "OS-Image": "@core.v1.NodeSystemInfo osImage",
        "Kernel-Version": "@core.v1.NodeSystemInfo kernelVersion",
        "Container-Runtime": "@core.v1.NodeSystemInfo containerRuntimeVersion",
    },
    ("", "PersistentVolume"): {
        **_fields(
            "core.v1.PersistentVolumeSpec", Capacity="capacity", Access_Modes="accessModes",
            Reclaim_Policy="persistentVolumeReclaimPolicy", Claim="claimRef", VolumeMode="volumeMode",
        ),
        **_fields("core.v1.PersistentVolumeStatus", Status="phase", Reason="reason"),
        "StorageClass": "StorageClass of the pv",
        "VolumeAttributesClass": "VolumeAttributesClass of the pv",
    },
    ("", "PersistentVolumeClaim"): {
        **_fields(
            "core.v1.PersistentVolumeClaimStatus", Status="phase", Capacity="capacity", Access_Modes="accessModes"
        ),
        **_fields("core.v1.PersistentVolumeClaimSpec", Volume="volumeName", VolumeMode="volumeMode"),
        "StorageClass": "StorageClass of the pvc",
        "VolumeAttributesClass": "VolumeAttributesClass of the pvc",
    },
    ("", "Pod"): {
        "Ready": "The aggregate readiness state of this pod for accepting traffic.",
        "Status": "The aggregate status of the containers in this pod.",
        "Restarts": "The number of times the containers in this pod have been restarted and when the last container in "
        "this pod has restarted.",
        **_fields("core.v1.PodStatus", IP="podIP", Nominated_Node="nominatedNodeName"),
        **_fields("core.v1.PodSpec", Node="nodeName", Readiness_Gates="readinessGates"),
    },
    ("", "PodTemplate"): {**_TEMPLATE, "Pod Labels": "The labels for the pod template."},
    ("", "ReplicationController"): {
        **_TEMPLATE,
        **_fields("core.v1.ReplicationControllerSpec", Desired="replicas", Selector="selector"),
        **_fields("core.v1.ReplicationControllerStatus", Current="replicas", Ready="readyReplicas"),
    },
    ("", "ResourceQuota"): {
        "Request": "Request represents a minimum amount of cpu/memory that a container may consume.",
        "Limit": "Limits control the maximum amount of cpu/memory that a container may use independent of contention "
        "on the node.",
    },
    ("", "Secret"): _fields("core.v1.Secret", Type="type", Data="data"),
    ("", "Service"): {
        **_fields("core.v1.ServiceSpec", Type="type", Selector="selector"),
        "Cluster-IP": "@core.v1.ServiceSpec clusterIP",
        "External-IP": "@core.v1.ServiceSpec externalIPs",
        "Port(s)": "@core.v1.ServiceSpec ports",
    },
    ("", "ServiceAccount"): _fields("core.v1.ServiceAccount", Secrets="secrets"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): {
        "Mutations": "Mutation indicates the number of mutations rules defined in this configuration",
        "ParamKind": _PARAM_KIND,
    },
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): _POLICY_BINDING,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _HOOKS,
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): {
        "Validations": "Validations indicates the number of validation rules defined in this configuration",
        "ParamKind": _PARAM_KIND,
    },
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): _POLICY_BINDING,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _HOOKS,
    ("apiregistration.k8s.io", "APIService"): {
        "Service": "The reference to the service that hosts this API endpoint.",
        "Available": "Whether this service is available.",
    },
    ("apps", "ControllerRevision"): {
        "Controller": "Controller of the object",
        **_fields("apps.v1.ControllerRevision", Revision="revision"),
    },
    ("apps", "DaemonSet"): {
        **_TEMPLATE,
        **_fields(
            "apps.v1.DaemonSetStatus", Desired="desiredNumberScheduled", Current="currentNumberScheduled",
            Ready="numberReady", Available="numberAvailable",
        ),
        "Up-to-date": "@apps.v1.DaemonSetStatus updatedNumberScheduled",
        **_fields("core.v1.PodSpec", Node_Selector="nodeSelector"),
        **_fields("apps.v1.DaemonSetSpec", Selector="selector"),
    },
    ("apps", "Deployment"): {
        **_TEMPLATE,
        "Ready": _READY,
        "Up-to-date": "@apps.v1.DeploymentStatus updatedReplicas",
        **_fields("apps.v1.DeploymentStatus", Available="availableReplicas"),
        **_fields("apps.v1.DeploymentSpec", Selector="selector"),
    },
    ("apps", "ReplicaSet"): {
        **_TEMPLATE,
        **_fields("apps.v1.ReplicaSetSpec", Desired="replicas", Selector="selector"),
        **_fields("apps.v1.ReplicaSetStatus", Current="replicas", Ready="readyReplicas"),
    },
    ("apps", "StatefulSet"): {**_TEMPLATE, "Ready": _READY},
    ("autoscaling", "HorizontalPodAutoscaler"): {
        **_fields(
            "autoscaling.v2.HorizontalPodAutoscalerSpec", Reference="scaleTargetRef", Targets="metrics",
            MinPods="minReplicas", MaxPods="maxReplicas",
        ),
        **_fields("autoscaling.v2.HorizontalPodAutoscalerStatus", Replicas="currentReplicas"),
    },
    ("autoscaling", "Scale"): {
        **_fields("autoscaling.v1.ScaleSpec", Desired="replicas"),
        **_fields("autoscaling.v1.ScaleStatus", Available="replicas"),
    },
    ("batch", "CronJob"): {
        **_TEMPLATE,
        **_fields("batch.v1.CronJobSpec", Schedule="schedule", Timezone="timeZone", Suspend="suspend"),
        **_fields("batch.v1.CronJobStatus", Active="active", Last_Schedule="lastScheduleTime"),
        **_fields("batch.v1.JobSpec", Selector="selector"),
    },
    ("batch", "Job"): {
        **_TEMPLATE,
        "Status": "Status of the job.",
        "Duration": "Time required to complete the job.",
        **_fields("batch.v1.JobStatus", Completions="succeeded"),
        **_fields("batch.v1.JobSpec", Selector="selector"),
    },
    ("certificates.k8s.io", "CertificateSigningRequest"): {
        **_fields(
            "certificates.v1.CertificateSigningRequestSpec", SignerName="signerName", Requestor="request",
            RequestedDuration="expirationSeconds",
        ),
        **_fields("certificates.v1.CertificateSigningRequestStatus", Condition="conditions"),
    },
    ("coordination.k8s.io", "Lease"): _fields("coordination.v1.LeaseSpec", Holder="holderIdentity"),
    ("discovery.k8s.io", "EndpointSlice"): _fields(
        "discovery.v1.EndpointSlice", AddressType="addressType", Ports="ports", Endpoints="endpoints"
    ),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): {
        **_fields("flowcontrol.v1.PriorityLevelConfigurationReference", PriorityLevel="name"),
        **_fields(
            "flowcontrol.v1.FlowSchemaSpec", MatchingPrecedence="matchingPrecedence",
            DistinguisherMethod="distinguisherMethod",
        ),
        "MissingPL": "references a broken or non-existent PriorityLevelConfiguration",
    },
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): {
        **_fields("flowcontrol.v1.PriorityLevelConfigurationSpec", Type="type"),
        **_fields(
            "flowcontrol.v1.LimitedPriorityLevelConfiguration", NominalConcurrencyShares="nominalConcurrencyShares"
        ),
        **_fields(
            "flowcontrol.v1.QueuingConfiguration", Queues="queues", HandSize="handSize",
            QueueLengthLimit="queueLengthLimit",
        ),
    },
    ("networking.k8s.io", "IPAddress"): _fields("networking.v1.IPAddressSpec", ParentRef="parentRef"),
    ("networking.k8s.io", "Ingress"): {
        "Class": "The name of the IngressClass resource that should be used for additional configuration",
        "Hosts": "Hosts that incoming requests are matched against before the ingress rule",
        "Address": "Address is a list containing ingress points for the load-balancer",
        "Ports": "Ports of TLS configurations that open",
    },
    ("networking.k8s.io", "IngressClass"): {
        "Controller": "Controller that is responsible for handling this class",
        "Parameters": "A reference to a resource with additional parameters",
    },
    ("networking.k8s.io", "NetworkPolicy"): {"Pod-Selector": "@networking.v1.NetworkPolicySpec podSelector"},
    ("networking.k8s.io", "ServiceCIDR"): _fields("networking.v1.ServiceCIDRSpec", CIDRs="cidrs"),
    ("policy", "PodDisruptionBudget"): {
        "Min Available": "The minimum number of pods that must be available.",
        "Max Unavailable": "The maximum number of pods that may be unavailable.",
        "Allowed Disruptions": "Calculated number of pods that may be disrupted at this time.",
    },
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _bound("clusterRoleBinding", "rbac.v1.ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "RoleBinding"): _bound("roleBinding", "rbac.v1.RoleBinding"),
    ("resource.k8s.io", "ResourceClaim"): {
        "State": "A summary of the current state (allocated, pending, reserved, etc.)."
    },
    ("resource.k8s.io", "ResourceSlice"): {
        **_fields("resource.v1.ResourceSliceSpec", Node="nodeName", Driver="driver"),
        **_fields("resource.v1.ResourcePool", Pool="name"),
    },
    ("scheduling.k8s.io", "PriorityClass"): {
        **_fields("scheduling.v1.PriorityClass", Value="value", PreemptionPolicy="preemptionPolicy"),
        "Global-Default": "@scheduling.v1.PriorityClass globalDefault",
    },
    ("storage.k8s.io", "CSIDriver"): _fields(
        "storage.v1.CSIDriverSpec", AttachRequired="attachRequired", PodInfoOnMount="podInfoOnMount",
        StorageCapacity="storageCapacity", TokenRequests="tokenRequests", RequiresRepublish="requiresRepublish",
        Modes="volumeLifecycleModes",
    ),
    ("storage.k8s.io", "CSINode"): {
        "Drivers": "Drivers indicates the number of CSI drivers registered on the node"
    },
    ("storage.k8s.io", "CSIStorageCapacity"): _fields(
        "storage.v1.CSIStorageCapacity", StorageClassName="storageClassName", Capacity="capacity"
    ),
    ("storage.k8s.io", "StorageClass"): _fields(
        "storage.v1.StorageClass", Provisioner="provisioner", ReclaimPolicy="reclaimPolicy",
        VolumeBindingMode="volumeBindingMode", AllowVolumeExpansion="allowVolumeExpansion",
    ),
    ("storage.k8s.io", "VolumeAttachment"): {
        **_fields("storage.v1.VolumeAttachmentSpec", Attacher="attacher", Node="nodeName"),
        **_fields("storage.v1.VolumeAttachmentSource", PV="persistentVolumeName"),
        **_fields("storage.v1.VolumeAttachmentStatus", Attached="attached"),
    },
    ("storage.k8s.io", "VolumeAttributesClass"): _fields("storage.v1.VolumeAttributesClass", DriverName="driverName"),
}  # fmt: skip


def description(group: str, kind: str, column: str, documented: Documented) -> str:
    """What a column of a kind is said to show; empty where nothing is."""
    if column in _OF_METADATA:
        return documented(_META, _OF_METADATA[column])
    text = _DESCRIPTIONS.get((group, kind), {}).get(column, "")
    if not text.startswith("@"):
        return text
    definition, _, field = text[1:].partition(" ")
    return documented(f"io.k8s.api.{definition}", field)

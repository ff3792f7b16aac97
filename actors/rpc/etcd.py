"""The services of etcd v3 over a replica: wire to values and back, nothing else.

What is left out is refused by name, in a sentence: users and roles (certificates decide), locks and elections on the
server (clients make them of keys and leases), downgrades.
"""

from __future__ import annotations

from steersman.actors.rpc.etcd_auth import AuthServicer
from steersman.actors.rpc.etcd_cluster import ClusterServicer
from steersman.actors.rpc.etcd_kv import KvServicer, LeaseServicer
from steersman.actors.rpc.etcd_maintenance import MaintenanceServicer
from steersman.actors.rpc.etcd_watch import WatchServicer
from steersman.actors.rpc.h2.server import Server
from steersman.actors.store.replica import Replica
from steersman.pb import etcd_pb2_grpc

#: what the store leaves out of etcd's services, by the beginning of the method's name
LEFT_OUT = {
    "/etcdserverpb.Auth/": "this store knows no users and roles: client certificates decide who may use it",
    "/v3lockpb.Lock/": "this store keeps no locks: make them of keys and leases, as `etcdctl lock` does",
    "/v3electionpb.Election/": "this store holds no elections: make them of keys and leases, as `etcdctl elect` does",
    "/etcdserverpb.Maintenance/Downgrade": "this store cannot be downgraded: restore a backup with the older version",
}


def add_etcd_services(server: Server, replica: Replica) -> None:
    etcd_pb2_grpc.add_KVServicer_to_server(KvServicer(replica), server)
    etcd_pb2_grpc.add_WatchServicer_to_server(WatchServicer(replica), server)
    etcd_pb2_grpc.add_LeaseServicer_to_server(LeaseServicer(replica), server)
    etcd_pb2_grpc.add_ClusterServicer_to_server(ClusterServicer(replica), server)
    etcd_pb2_grpc.add_AuthServicer_to_server(AuthServicer(), server)
    etcd_pb2_grpc.add_MaintenanceServicer_to_server(MaintenanceServicer(replica), server)
    server.leave_out(LEFT_OUT)

import pytest

from steersman.cluster.config import ClusterConfig, parse
from steersman.cluster.control import CONTROLLERS
from steersman.cluster.topology import Host, controller_groups, topology

HERE = Host(name="one", address="127.0.0.1", data_dir="/data", runtime="oci")
THERE = Host(name="two", address="127.0.0.2", data_dir="/data", runtime="oci")


def actors(text="", hosts=(HERE,)):
    config = parse(text)
    config = config.model_copy(update={"ports": config.ports.resolved()})
    return topology(config, hosts, sorted(CONTROLLERS))


@pytest.mark.parametrize("how", ["each", "grouped", "packed"])
def test_every_controller_runs_in_exactly_one_actor(how):
    groups = controller_groups(sorted(CONTROLLERS), how)
    assert sorted(name for names in groups.values() for name in names) == sorted(CONTROLLERS)
    assert groups["controller-clusterrole-aggregation"] == ["clusterrole-aggregation"]


def test_each_controller_can_have_an_actor_of_its_own_but_five_that_seldom_work():
    names = {actor.name for actor in actors("control_plane: {controllers: each}")}
    guests = {"endpointslicemirroring", "ipaddress-repair", "replicationcontroller", "service-cidr", "statefulset"}
    assert {f"controller-{name}" for name in CONTROLLERS if name not in guests} <= names


def test_names_and_status_ports_are_unique():
    specs = actors("control_plane: {replicas: 5, api_servers: 3, controllers: each}", (HERE, THERE))
    assert len({spec.name for spec in specs}) == len(specs)
    assert len({(spec.host, spec.status_port) for spec in specs}) == len(specs)


def test_a_machine_that_joins_changes_no_port_of_the_others():
    before = {spec.name: spec.status_port for spec in actors()}
    after = {spec.name: spec.status_port for spec in actors(hosts=(HERE, THERE))}
    assert before.items() <= after.items()
    assert {"node-two", "proxy-two", "dns-two"} == after.keys() - before.keys()


def test_an_embedded_cluster_is_one_actor():
    assert [spec.role for spec in actors("embedded: true")] == ["embedded"]


def test_the_default_configuration_has_one_store_and_one_api_server():
    assert ClusterConfig().control_plane.replicas == 1
    roles = [spec.role for spec in actors()]
    assert (roles.count("store"), roles.count("apiserver"), roles.count("scheduler")) == (1, 1, 1)

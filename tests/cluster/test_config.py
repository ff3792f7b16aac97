import pytest

from steersman.cluster.config import ClusterConfig, ConfigError, parse, render


def test_an_empty_file_is_the_default_configuration():
    assert parse("") == ClusterConfig()


def test_the_rendered_configuration_reads_back_equal():
    config = parse("name: lab\nnode: {labels: {disk: ssd}, taints: ['a=b:NoSchedule']}\nports: {base: 7000}\n")
    assert parse(render(config)) == config
    assert "# " in render(config).splitlines()[0]


def test_overrides_win_over_the_file():
    config = parse("control_plane:\n  replicas: 3\n  api_servers: 2\n", {"control_plane": {"replicas": 5}})
    assert (config.control_plane.replicas, config.control_plane.api_servers) == (5, 2)


def test_ports_follow_from_the_base_unless_chosen():
    ports = parse("ports: {base: 7000, api: 16443}").ports.resolved()
    assert (ports.api, ports.grpc, ports.grpc_token, ports.ray) == (16443, 7004, 7005, 7012)


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("name: lab\nwrong: 1\n", 2, "wrong", "unknown field"),
        ("control_plane:\n  replicas: 2\n", 2, "control_plane.replicas", "1, 3 or 5"),
        ("name: Lab\n", 1, "name", "RFC 1123"),
        ("networking:\n  mode: auto\n  pod_cidr: nonsense\n", 3, "networking.pod_cidr", "IPv4 or IPv6"),
        ("networking:\n  pod_cidr: 10.96.0.0/12\n", 1, "networking", "overlap"),
        ("node:\n  taints:\n    - nonsense\n", 1, "node", "key=value:Effect"),
        ("ports:\n  api: 99999\n", 2, "ports.api", "65535"),
        ("name: [\n", 2, "", "expected"),
        ("- a\n", 1, "", "mapping"),
        ("simulated_nodes:\n  memory: lots\n", 2, "simulated_nodes.memory", "quantities must match"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_mistake_names_its_line_and_field(text, line, field, message):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    mistake = caught.value.mistakes[0]
    assert (mistake.line, mistake.field) == (line, field)
    assert message in mistake.message

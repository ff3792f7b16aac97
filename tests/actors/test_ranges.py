import subprocess
import sys

import pytest

from steersman.actors import ranges
from steersman.actors.ranges import NoRange, pair, take

HOLD = "import sys; from steersman.actors import ranges; print(ranges.take('loopback', None).pods, flush=True); input()"


@pytest.fixture(autouse=True)
def let_go():
    yield
    while ranges._held:
        ranges._held.pop().close()


def test_clusters_on_one_machine_take_different_ranges():
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    theirs = other.stdout.readline().strip()
    mine = take("loopback", None)
    other.communicate("\n", timeout=10)
    assert theirs.startswith("127.")
    assert mine.pods != theirs


def test_a_cluster_gets_the_ranges_it_had_before():
    assert take("bridge", pair("bridge", 7)) == pair("bridge", 7)


def test_ranges_of_a_running_cluster_are_refused():
    number = 9
    before = pair("loopback", number)
    script = f"from steersman.actors import ranges; print(ranges._hold('loopback', {number}), flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "True"
    with pytest.raises(NoRange, match="another cluster"):
        take("loopback", before)
    other.communicate("\n", timeout=10)


def test_pairs_never_overlap():
    import ipaddress

    networks = [
        ipaddress.ip_network(text)
        for mode in ("bridge", "loopback")
        for number in range(16)
        for text in (pair(mode, number).pods, pair(mode, number).services)
    ]
    assert len(set(networks)) == 64


def test_a_routed_network_counts_as_taken(tmp_path):
    table = tmp_path / "route"
    table.write_text("Iface\tDestination\tGateway\neth0\t0500F40A\t00000000\n")
    assert ranges._is_routed("10.244.0.0/16", table)
    assert not ranges._is_routed("10.243.0.0/16", table)

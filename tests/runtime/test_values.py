"""The parts of the runtimes that only decide: addresses, log entries, users, configurations, pod files, rules."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from steersman.cluster.node.values import (
    ContainerSpec,
    DnsConfig,
    Mount,
    PortMapping,
    Resources,
    RuntimeFailure,
    SandboxSpec,
    SecurityContext,
)
from steersman.runtime import cgroups, crilog, machine, oci_spec, podfiles, seccomp, users
from steersman.runtime.addresses import AddressPool, PoolExhausted, loopback_cidr
from steersman.runtime.oci_containers import signal_number
from steersman.runtime.oci_spec import ImageConfig, Surroundings
from steersman.runtime.podnet import host_port_rules
from steersman.runtime.users import Account

# --- addresses


def test_addresses_rest_before_they_are_used_again() -> None:
    pool = AddressPool("10.1.2.0/29")
    assert pool.gateway == "10.1.2.1"
    first = [pool.take() for _ in range(3)]
    assert first == ["10.1.2.2", "10.1.2.3", "10.1.2.4"]
    pool.release("10.1.2.2")
    assert [pool.take(), pool.take(), pool.take()] == ["10.1.2.5", "10.1.2.6", "10.1.2.2"]
    with pytest.raises(PoolExhausted):
        pool.take()


def test_marked_addresses_are_not_given_out() -> None:
    pool = AddressPool("10.1.2.0/29")
    for address in ("10.1.2.2", "10.1.2.4", "192.168.0.1"):
        pool.mark(address)
    assert [pool.take() for _ in range(3)] == ["10.1.2.5", "10.1.2.6", "10.1.2.3"]


@pytest.mark.parametrize(
    ("cidr", "expected"),
    [
        ("10.244.3.0/24", "127.84.3.0/24"),
        ("127.64.5.0/24", "127.64.5.0/24"),
        ("192.168.7.0/24", "127.72.7.0/24"),
        ("10.0.0.0/8", "127.64.0.0/11"),
    ],
)
def test_a_pod_range_has_its_place_on_loopback(cidr: str, expected: str) -> None:
    assert loopback_cidr(cidr) == expected


# --- logs


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (b"1970-01-01T00:00:01.500000000Z stdout F hello\n", (1.5, 1, b"hello\n")),
        (b"1970-01-01T00:00:01.5Z stderr P part\n", (1.5, 2, b"part")),
        (b"1970-01-01T01:00:01.25+01:00 stdout F \n", (1.25, 1, b"\n")),
        (b"1970-01-01T00:00:01Z stdout F a b  c\n", (1.0, 1, b"a b  c\n")),
        (b"nonsense\n", None),
        (b"yesterday stdout F x\n", None),
        (b"1970-01-01T00:00:01Z stdin F x\n", None),
    ],
)
def test_a_log_entry_is_read(entry: bytes, expected: tuple[float, int, bytes] | None) -> None:
    assert crilog.parse(entry) == expected


def test_a_written_entry_is_read_back() -> None:
    entry = crilog.format_entry(1_700_000_000.25, 2, b"text", partial=False)
    assert crilog.parse(entry) == (1_700_000_000.25, 2, b"text\n")
    assert crilog.parse(crilog.format_entry(1.0, 1, b"text", partial=True)) == (1.0, 1, b"text")


async def test_parts_of_a_line_are_joined_per_stream(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rows = [(1, b"one ", True), (2, b"err", False), (1, b"two", False), (1, b"rest", True)]
    log.write_bytes(b"".join(crilog.format_entry(5.0, s, t, partial=p) for s, t, p in rows))
    found = [(stream, text) async for _, stream, text in crilog.lines(log, follow=False, is_over=lambda: True)]
    assert found == [(2, b"err\n"), (1, b"one two\n"), (1, b"rest")]


async def test_a_follower_goes_on_in_the_new_file_after_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crilog, "LOG_BYTES_MAX", 10)
    log, over = tmp_path / "log", False
    log.write_bytes(crilog.format_entry(1.0, 1, b"old", partial=False))
    seen: list[bytes] = []

    async def follow() -> None:
        async for _, _, text in crilog.lines(log, follow=True, is_over=lambda: over):
            seen.append(text)

    task = asyncio.create_task(follow())
    async with asyncio.timeout(10):
        while seen != [b"old\n"]:  # noqa: ASYNC110 (the follower tells nobody)
            await asyncio.sleep(0.01)
    assert crilog.rotate(log)
    log.write_bytes(crilog.format_entry(2.0, 1, b"new", partial=False))
    over = True
    await asyncio.wait_for(task, 10)
    assert seen == [b"old\n", b"new\n"]


# --- users

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:44:\nextra:x:55:web,other\n"


@pytest.mark.parametrize(
    ("security", "image_user", "expected"),
    [
        (SecurityContext(), "", Account(0, 0, (0,), "/root")),
        (SecurityContext(), "web", Account(33, 44, (44, 55), "/srv")),
        (SecurityContext(), "web:extra", Account(33, 55, (55,), "/srv")),
        (SecurityContext(), "1234", Account(1234, 0, (0,), "/")),
        (SecurityContext(), "1234:77", Account(1234, 77, (77,), "/")),
        (SecurityContext(run_as_user=33), "root", Account(33, 44, (44, 55), "/srv")),
        (SecurityContext(run_as_user=9, run_as_group=8, supplemental_groups=(7, 8)), "", Account(9, 8, (8, 7), "/")),
    ],
)
def test_an_account_follows_from_pod_and_image(security: SecurityContext, image_user: str, expected: Account) -> None:
    assert users.resolve(security, image_user, PASSWD, GROUP) == expected


@pytest.mark.parametrize("image_user", ["nobody", "web:nogroup"])
def test_an_unknown_user_or_group_is_refused(image_user: str) -> None:
    with pytest.raises(RuntimeFailure, match="unable to find"):
        users.resolve(SecurityContext(), image_user, PASSWD, GROUP)


# --- the OCI configuration

SPEC = ContainerSpec(pod_uid="u", pod_name="p", namespace="n", name="c", image="sha256:0")
POD = SandboxSpec(pod_uid="u", name="p", namespace="n", hostname="p")
IMAGE = ImageConfig(entrypoint=("/entry",), command=("default",), env=("A=image", "B=image"), working_dir="/srv")
AROUND = Surroundings(
    rootfs="/r", namespaces={"network": "/ns/net", "ipc": "host", "pid": ""}, cgroup="/g", files=(("/h", "/etc/hosts"),)
)


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ((), (), ["/entry", "default"]),
        ((), ("x",), ["/entry", "x"]),
        (("/cmd",), (), ["/cmd"]),
        (("/cmd",), ("x",), ["/cmd", "x"]),
    ],
)
def test_command_and_arguments_replace_the_images(
    command: tuple[str, ...], args: tuple[str, ...], expected: list[str]
) -> None:
    assert oci_spec.process_args(replace(SPEC, command=command, args=args), IMAGE) == expected


def test_a_container_without_any_command_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="no command"):
        oci_spec.process_args(SPEC, ImageConfig())


def test_the_pods_environment_comes_over_the_images() -> None:
    found = oci_spec.process_env(replace(SPEC, env=(("A", "pod"), ("C", "x=y"))), IMAGE, "host", "/root")
    rows = dict(line.split("=", 1) for line in found)
    assert (rows["A"], rows["B"], rows["C"], rows["HOSTNAME"], rows["HOME"]) == ("pod", "image", "x=y", "host", "/root")
    assert "/usr/bin" in rows["PATH"]


@pytest.mark.parametrize(
    ("security", "present", "absent"),
    [
        (SecurityContext(), "CAP_CHOWN", "CAP_SYS_ADMIN"),
        (SecurityContext(capabilities_add=("sys_admin",)), "CAP_SYS_ADMIN", "CAP_BPF"),
        (SecurityContext(capabilities_drop=("CHOWN",)), "CAP_KILL", "CAP_CHOWN"),
        (SecurityContext(capabilities_drop=("ALL",), capabilities_add=("KILL",)), "CAP_KILL", "CAP_CHOWN"),
        (SecurityContext(capabilities_add=("ALL",), capabilities_drop=("KILL",)), "CAP_BPF", "CAP_KILL"),
        (SecurityContext(privileged=True), "CAP_BPF", "CAP_NONE"),
    ],
)
def test_capabilities_follow_from_the_security_context(security: SecurityContext, present: str, absent: str) -> None:
    found = oci_spec.capabilities(replace(SPEC, security=security), (1 << 41) - 1)
    assert present in found and absent not in found


def test_what_this_process_does_not_hold_is_not_given() -> None:
    found = oci_spec.capabilities(replace(SPEC, security=SecurityContext(privileged=True)), 1 << 5)
    assert found == ["CAP_KILL"]


def test_a_configuration_says_all_of_it() -> None:
    container = replace(
        SPEC,
        mounts=(
            Mount(host_path="/v/deep", container_path="/data/deep"),
            Mount(host_path="/v", container_path="/data", read_only=True, propagation="HostToContainer"),
        ),
        resources=Resources(
            cpu_shares=512, cpu_quota_us=20_000, memory_limit_bytes=1000, pids_limit=9, oom_score_adj=-999
        ),
        security=SecurityContext(read_only_root=True, no_new_privileges=True),
    )
    found = oci_spec.build(container, POD, IMAGE, Account(5, 6, (6, 7)), replace(AROUND, oom_score_adj_min=0))
    assert found["process"]["user"] == {"uid": 5, "gid": 6, "additionalGids": [6, 7], "umask": 0o022}
    assert (found["process"]["cwd"], found["process"]["noNewPrivileges"]) == ("/srv", True)
    assert found["process"]["oomScoreAdj"] == 0
    assert found["root"] == {"path": "/r", "readonly": True}
    binds = [mount["destination"] for mount in found["mounts"] if mount["type"] == "bind"]
    assert binds == ["/etc/hosts", "/data", "/data/deep"]
    (data,) = [mount for mount in found["mounts"] if mount["destination"] == "/data"]
    assert data["options"] == ["rbind", "rslave", "ro"]
    linux = found["linux"]
    assert linux["namespaces"] == [{"type": "mount"}, {"type": "network", "path": "/ns/net"}, {"type": "pid"}]
    assert linux["resources"]["cpu"] == {"shares": 512, "quota": 20_000, "period": 100_000}
    assert linux["resources"]["memory"] == {"limit": 1000}
    assert "/proc/kcore" in linux["maskedPaths"] and linux["seccomp"]["defaultAction"] == "SCMP_ACT_ALLOW"


def test_a_privileged_container_is_not_fenced() -> None:
    container = replace(SPEC, security=SecurityContext(privileged=True))
    devices = ({"path": "/dev/x", "type": "c", "major": 1, "minor": 2},)
    found = oci_spec.build(container, POD, IMAGE, Account(0, 0), replace(AROUND, devices=devices))["linux"]
    assert "seccomp" not in found and "maskedPaths" not in found
    assert found["devices"] == [dict(devices[0])]
    assert found["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


def test_a_mount_over_a_pods_file_wins() -> None:
    container = replace(SPEC, mounts=(Mount(host_path="/mine", container_path="/etc/hosts"),))
    found = oci_spec.build(container, POD, IMAGE, Account(0, 0), AROUND)
    assert [m["source"] for m in found["mounts"] if m["destination"] == "/etc/hosts"] == ["/mine"]


def test_capabilities_open_system_calls() -> None:
    def refused(*capabilities: str) -> set[str]:
        return {name for rule in seccomp.profile(capabilities)["syscalls"] for name in rule["names"]}

    assert {"mount", "clone3", "bpf", "kexec_load"} <= refused()
    assert refused("CAP_SYS_ADMIN").isdisjoint({"mount", "clone3", "bpf"})
    assert "kexec_load" in refused("CAP_SYS_ADMIN")
    assert "open_by_handle_at" not in refused("CAP_DAC_READ_SEARCH")


# --- small rules


@pytest.mark.parametrize(("name", "number"), [("", 15), ("SIGQUIT", 3), ("QUIT", 3), ("9", 9), ("SIGNONE", 15)])
def test_a_stop_signal_has_a_number(name: str, number: int) -> None:
    assert signal_number(name) == number


def test_pods_have_their_place_among_the_cgroups() -> None:
    assert cgroups.pod_path("/s", "Guaranteed", "u") == "/s/kubepods/podu"
    assert cgroups.pod_path("/s", "Burstable", "u") == "/s/kubepods/burstable/podu"
    assert cgroups.pod_path("/s", "BestEffort", "u") == "/s/kubepods/besteffort/podu"
    assert [cgroups.shares_to_weight(shares) for shares in (2, 1024, 262144)] == [1, 39, 10000]


def test_both_cgroup_versions_are_recognised(tmp_path: Path) -> None:
    two = tmp_path / "two"
    two.write_text("31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw\n")
    found = cgroups.Cgroups(str(two))
    assert (found.version, found.mounts, found.hybrid) == (2, {"unified": "/sys/fs/cgroup"}, "")
    one = tmp_path / "one"
    one.write_text(
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    )
    found = cgroups.Cgroups(str(one))
    assert (found.version, found.hybrid) == (1, "/sys/fs/cgroup/unified")
    assert found.mounts["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert "memory" in found.missing
    (tmp_path / "none").write_text("22 27 0:21 / /proc rw - proc proc rw\n")
    assert cgroups.Cgroups(str(tmp_path / "none")).missing == ("cpu", "memory", "pids")


def test_a_version_2_tree_is_limited_and_read(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    group = root / "s" / "pod"
    group.mkdir(parents=True)
    for directory in (root, root / "s"):
        (directory / "cgroup.controllers").write_text("cpu memory pids\n")
        (directory / "cgroup.subtree_control").write_text("")
    for name in ("cpu.weight", "cpu.max", "memory.max", "pids.max"):
        (group / name).write_text("")
    (group / "cpu.stat").write_text("usage_usec 7\nuser_usec 5\n")
    (group / "memory.current").write_text("1000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 300\n")
    (group / "memory.events").write_text("low 0\noom_kill 2\n")
    (tmp_path / "mountinfo").write_text(f"31 23 0:28 / {root} rw - cgroup2 cgroup2 rw\n")
    found = cgroups.Cgroups(str(tmp_path / "mountinfo"))
    found.make("/s/pod", Resources(cpu_shares=1024, cpu_quota_us=50_000, memory_limit_bytes=77))
    texts = [(group / name).read_text() for name in ("cpu.weight", "cpu.max", "memory.max", "pids.max")]
    assert texts == ["39", "50000 100000", "77", "max"]
    assert found.usage("/s/pod") == cgroups.Usage(7000, 1000, 700)
    assert found.oom_kills("/s/pod") == 2
    assert found.usage("/s/none") is None


def test_a_pods_files_say_what_the_pod_wants() -> None:
    spec = replace(POD, dns=DnsConfig(servers=("1.1.1.1",), options=("ndots:5",)), host_aliases=(("9.9.9.9", ("x",)),))
    assert podfiles.resolv_conf(spec, "host file") == "nameserver 1.1.1.1\noptions ndots:5\n"
    assert podfiles.resolv_conf(POD, "host file") == "host file"
    assert podfiles.hosts(spec, ("10.0.0.9",), "host").endswith(
        "10.0.0.9\tp\n\n# Entries added by HostAliases.\n9.9.9.9\tx\n"
    )
    named = replace(POD, hostname="db-0.db.shop.svc.zone", fqdn="db-0.db.shop.svc.zone")
    assert "\n10.0.0.9\tdb-0.db.shop.svc.zone\tdb-0\n" in podfiles.hosts(named, ("10.0.0.9",), "host")
    assert "127.1.1.1 me" in podfiles.hosts(replace(POD, host_network=True), (), "127.1.1.1 me\n")


def test_host_ports_are_rules_that_change_at_once() -> None:
    port = PortMapping(container_port=80, host_port=8080, protocol="UDP", host_ip="1.2.3.4")
    script = host_port_rules("t", "10.0.0.1", (("10.0.0.9", port),))
    assert "ip daddr 1.2.3.4 udp dport 8080 dnat to 10.0.0.9:80" in script
    assert script.startswith("table ip t {}\ndelete table ip t\n")
    assert host_port_rules("t", "10.0.0.1", ()) == "table ip t {}\ndelete table ip t\n"


def test_the_machine_says_what_it_is(tmp_path: Path) -> None:
    found = machine.look(tmp_path / "not" / "there")
    assert found.cpus >= 1 and found.memory_bytes > 1 << 28
    assert found.capacity()["memory"].endswith("Ki") and found.capacity()["pods"] == "110"
    info = found.node_info("oci://crun 1.8", "v1.36.0")
    assert (info["operatingSystem"], info["containerRuntimeVersion"]) == ("linux", "oci://crun 1.8")
    assert info["bootID"] and info["kernelVersion"]

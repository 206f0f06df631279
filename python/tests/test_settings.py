"""`LITEFS` as a litepilot.yml, and back; and what the program says of that."""

import pathlib
import subprocess
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from litepilot.reading import SettingsError, read
from litepilot.settings import parse
from tests import pages, program

FORMER = {
    "MOUNT_PATH": "/litefs",
    "DATA_PATH": "/var/lib/litefs",
    "DATABASE_NAME": "db.sqlite3",
    "LEADER_ELECTION": "raft",
    "RAFT_SELF_ADDR": "node-1:4321",
    "RAFT_PEERS": ["node-1:4321", "node-2:4321", "node-3:4321"],
    "PROXY": {"ADDR": ":8080", "TARGET": "localhost:8000", "DB": "db.sqlite3"},
    "PROXY_ADDR": ":8080",
    "RETENTION": "1h",
    "ENABLED": True,
}

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
hosts = st.from_regex(r"[a-z][a-z0-9-]{0,10}", fullmatch=True)
octets = st.integers(1, 254)
addresses = st.builds("10.0.{}.{}".format, octets, octets)
# Apart from each other, and from the ports that nodes have of their own.
ports = st.integers(20300, 65535)
public_ports = st.integers(10000, 20000)
durations = st.builds("{}{}".format, st.integers(1, 999), st.sampled_from(["ms", "s", "m", "h"]))
paths = st.from_regex(r"/srv/[a-zA-Z0-9 ._${}é-]{1,20}", fullmatch=True).filter(
    lambda path: path.strip("/. ") != "srv"
)


@st.composite
def clusters(draw):
    """The keys that say who is in the cluster."""
    distinct = draw(st.lists(hosts | addresses, min_size=1, max_size=5, unique=True))
    port = draw(ports)
    peers = [f"{host}:{port}" for host in distinct]
    if draw(st.booleans()):
        own = draw(st.sampled_from(peers))
        others = [peer for peer in peers if peer != own or draw(st.booleans())]
        cluster = {"RAFT_PEERS": others, "RAFT_SELF_ADDR": own}
        node = own.partition(":")[0]
    else:
        node = draw(names)
        named = draw(st.lists(names, min_size=len(peers), max_size=len(peers), unique=True))
        cluster = {"RAFT_PEERS": {node: peers[0], **dict(zip(named, peers[1:]))}, "NODE_ID": node}
    if draw(st.booleans()):
        return {**cluster, "LEADER_ELECTION": "static", "PRIMARY_HOSTNAME": node}
    return {**cluster, "LEADER_ELECTION": "raft"}


@st.composite
def litefs(draw):
    """What a project may write. Lists of addresses on one machine are left to the examples below."""
    given = draw(
        st.fixed_dictionaries(
            {
                "DATABASE_NAME": st.from_regex(
                    r"[a-z${}][a-z0-9 ._${}-]{0,10}", fullmatch=True
                ).map(str.strip)
            },
            optional={
                "MOUNT_PATH": paths.map(lambda path: path + "/mount"),
                "DATA_PATH": paths.map(lambda path: pathlib.Path(path, "data")),
                "RETENTION": durations,
                "PROXY_ADDR": st.builds(":{}".format, public_ports),
            },
        )
    )
    target = draw(st.none() | st.builds("127.0.0.1:{}".format, st.integers(1024, 4000)))
    hold = draw(st.none() | durations)
    proxy = {"TARGET": target, "PRIMARY_REDIRECT_TIMEOUT": hold}
    given["PROXY"] = {key: value for key, value in proxy.items() if value}
    if draw(st.booleans()):
        given |= draw(clusters())
    given["CONFIG"] = {
        "node": "node-1",
        "cluster": {"insecure": True, "ack": draw(st.sampled_from(["primary", "one", "majority"]))},
        "app": {
            "command": draw(
                st.lists(
                    st.text(
                        st.characters(exclude_characters="\0", exclude_categories=("Cs",)),
                        min_size=1,
                        max_size=8,
                    ),
                    min_size=1,
                )
            )
        },
    }
    if given.get("NODE_ID") or given.get("RAFT_SELF_ADDR"):
        del given["CONFIG"]["node"]
    return given


@given(litefs())
def test_what_is_generated_says_the_same(given):
    settings = read(given)
    assert parse(settings.to_yaml()) == settings


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(litefs())
def test_the_program_accepts_what_is_generated(given):
    assert checked(read(given)) == ""


def checked(settings):
    """What the program has against them."""
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory, "litepilot.yml")
        file.write_text(settings.to_yaml(), encoding="utf-8")
        command = [program.required(), "check", "--elsewhere", "-c", file]
        check = subprocess.run(command, capture_output=True, text=True)
    return check.stdout + check.stderr if check.returncode else ""


@pytest.mark.parametrize("peers", [{}, {"RAFT_PEERS": []}, {"NODE_ID": "a"}])
def test_a_node_without_others_is_its_own_primary(peers):
    own = {"RAFT_SELF_ADDR": "a:4321", "LEADER_ELECTION": "static", "PRIMARY_HOSTNAME": "a"}
    settings = read({**own, **peers, "CONFIG": {"cluster": {"insecure": True}}})
    assert (settings.node, settings.peers) == ("a", {"a": "a:4321"})
    assert checked(settings) == ""


def test_the_keys_of_former_designs():
    settings = read(FORMER)
    assert settings.node == "node-1"
    assert settings.peers == {f"node-{i}": f"node-{i}:4321" for i in (1, 2, 3)}
    assert settings.database == "/litefs/db.sqlite3"
    assert parse(settings.to_yaml()) == settings


def test_the_program_wants_to_know_that_nodes_speak_plain_tcp():
    assert "cluster.tls" in checked(read(FORMER))
    assert checked(read({**FORMER, "CONFIG": {"cluster": {"insecure": True}}})) == ""


def test_the_example_of_the_documentation(monkeypatch):
    block = pages.python("applications/django.md", "INSTALLED_APPS")
    project = {}
    exec(block.replace("…", ""), project)
    monkeypatch.setenv("LITEPILOT_NODE", "node-2")
    settings = read(project["LITEFS"])
    assert len(settings.peers) == 3
    assert checked(settings) == ""


def test_nothing_at_all_is_one_node():
    assert checked(read({"CONFIG": {"node": "alone"}})) == ""


def test_a_static_primary():
    given = {
        "LEADER_ELECTION": "static",
        "PRIMARY_HOSTNAME": "b",
        "CONFIG": {"cluster": {"insecure": True}},
    }
    peers = {"RAFT_SELF_ADDR": "a:4321", "RAFT_PEERS": ["b:4321"]}
    assert checked(read({**given, **peers})) == ""
    assert "missing" in checked(read({**peers, "LEADER_ELECTION": "static"}))


@pytest.mark.parametrize("own", ["127.0.0.1:5001", "[::1]:5001", "localhost:5001"])
def test_nodes_of_one_machine_have_ports_in_their_names(own):
    host = own.rpartition(":")[0]
    settings = read({"RAFT_SELF_ADDR": own, "RAFT_PEERS": [f"{host}:5002", f"{host}:5003"]})
    assert len(settings.peers) == 3
    assert settings.node.endswith("-5001")
    assert settings.peer_listen == "127.0.0.1:5001"
    assert checked(settings) == ""


def test_the_same_settings_on_every_node(monkeypatch):
    given = {"RAFT_PEERS": {"a": "10.0.0.1:5001", "b": "10.0.0.2:5002"}}
    monkeypatch.setenv("LITEPILOT_NODE", "b")
    settings = read(given)
    assert (settings.node, settings.peer_listen) == (None, "0.0.0.0:5002")
    monkeypatch.setenv("LITEPILOT_NODE", "elsewhere")
    with pytest.raises(SettingsError, match="NODE_ID"):
        read(given)


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(SettingsError) as caught:
        read(
            {
                "MOUNT": "/litefs",
                "DATA_PATH": "relative",
                "RETENTION": 3600,
                "PROXY_ADDR": ":1",
                "PROXY": {"ADDR": ":2", "PASSTHROUGH": ["/static/*"]},
                "ENABLED": "yes",
                "CONFIG": {"proxy": {"db": "x"}, "litefs": 5, "app": {"command": [object()]}},
            }
        )
    said = "\n".join(caught.value.problems)
    for part in (
        "did you mean MOUNT_PATH",
        "DATA_PATH",
        "RETENTION",
        "PROXY_ADDR",
        "PASSTHROUGH",
        "ENABLED",
        "proxy.db is written as DATABASE_NAME",
        "litefs is a section",
        "app: ",
    ):
        assert part in said, said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"RAFT_PEERS": ["a:1", "b:1"]}, "RAFT_SELF_ADDR"),
        ({"RAFT_PEERS": ["a:1"], "RAFT_SELF_ADDR": "localhost:1"}, "how they reach this node"),
        ({"RAFT_PEERS": ["a"], "RAFT_SELF_ADDR": "b:1"}, "HOST:PORT"),
        ({"RAFT_PEERS": "a:1"}, "write a list"),
        ({"RAFT_PEERS": {"a": "x:1"}, "NODE_ID": "b"}, "not among"),
        ({"RAFT_PEERS": {"a": "x:1"}, "RAFT_SELF_ADDR": "y:1"}, "not this node's"),
        ({"RAFT_PEERS": ["a:1"], "RAFT_SELF_ADDR": "b:1", "NODE_ID": "c"}, "this node is b"),
    ],
)
def test_peers_that_make_no_sense(given, said):
    with pytest.raises(SettingsError, match=said):
        read(given)


def test_where_the_admin_port_is():
    assert read({}).admin_url == "http://127.0.0.1:9180"
    for listen, url in [
        (":1", "http://127.0.0.1:1"),
        ("0.0.0.0:1", "http://127.0.0.1:1"),
        ("10.0.0.1:1", "http://10.0.0.1:1"),
    ]:
        assert read({"CONFIG": {"admin": {"listen": listen}}}).admin_url == url

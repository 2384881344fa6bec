"""What a trial gets of a node, and how many fit: a table of machines, and properties over any."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.cluster.local import Node, Shares, allot, check_address, local_node
from study.common.errors import InvalidInputError, MachineError
from study.common.machine import usable_cores
from study.search.space import Resources


def asked(**fields: Any) -> Resources:
    return Resources(**{**dict.fromkeys(("cpus", "gpus", "concurrent", "data_workers")), **fields})


def nodes(*sizes: tuple[float, float]) -> list[Node]:
    return [Node(cpus=cpus, gpus=gpus) for cpus, gpus in sizes]


LAPTOP = nodes((8, 0))
SERVER = nodes((64, 4))
# A head that computes nothing, a small and a large node.
MIXED = nodes((0, 0), (16, 1), (64, 4))

CASES: dict[str, tuple[Resources, list[Node], tuple[float, float, int, int]]] = {
    # What was asked for, on what, and then: cores, GPUs, trials per node, trials in total.
    "a machine without a GPU is one trial's": (asked(), LAPTOP, (8, 0, 1, 1)),
    "cores of a trial decide how many fit": (asked(cpus=3), LAPTOP, (3, 0, 2, 2)),
    "a fraction of a core": (asked(cpus=0.5), LAPTOP, (0.5, 0, 16, 16)),
    "a GPU each, with its part of the cores": (asked(), SERVER, (16, 1, 4, 4)),
    "cores bound it where GPUs do not": (asked(cpus=30), SERVER, (30, 1, 2, 2)),
    "half a GPU": (asked(gpus=0.5), SERVER, (8, 0.5, 8, 8)),
    "a share of a GPU is not put together from two": (asked(gpus=0.4), SERVER, (8, 0.4, 8, 8)),
    "ten tenths of a GPU": (asked(gpus=0.1, cpus=0.1), nodes((8, 1)), (0.1, 0.1, 10, 10)),
    "more trials on a GPU than cores": (asked(gpus=0.1), nodes((4, 1)), (1, 0.1, 4, 4)),
    "the CPU of a machine with GPUs": (asked(gpus=0), SERVER, (64, 0, 1, 1)),
    "no GPU whole": (asked(), nodes((8, 0.5)), (8, 0, 1, 1)),
    "fewer at a time": (asked(concurrent=3), SERVER, (16, 1, 3, 3)),
    "more at a time than fit": (asked(concurrent=30), SERVER, (16, 1, 4, 4)),
    "several nodes": (asked(), nodes((16, 2), (16, 2)), (8, 1, 2, 4)),
    "at most so many over several nodes": (asked(concurrent=3), nodes((16, 2), (16, 2)), (8, 1, 2, 3)),
    "the least of unlike nodes": (asked(), MIXED, (16, 1, 4, 5)),
    "nodes without a GPU are not used for GPU trials": (asked(cpus=4), nodes((64, 0), (8, 2)), (4, 1, 2, 2)),
    "nodes without a GPU are used for CPU trials": (asked(gpus=0, cpus=4), nodes((64, 0), (8, 2)), (4, 0, 16, 18)),
    "a head without cores does not count": (asked(gpus=0), nodes((0, 0), (64, 0)), (64, 0, 1, 1)),
}


@pytest.mark.parametrize("case", CASES)
def test_allotments(case: str) -> None:
    wish, machines, (cpus, gpus, per_node, in_total) = CASES[case]
    expected = Shares(cpus=cpus, gpus=gpus, per_node=per_node, in_total=in_total)
    assert allot(wish, machines) == expected
    assert expected.device == ("cuda" if gpus else "cpu")


@pytest.mark.parametrize(
    ("wish", "machines", "received", "largest"),
    [
        (asked(cpus=9), LAPTOP, "9 CPUs and 0 GPUs", "8 CPUs and 0 GPUs"),
        (asked(gpus=1), LAPTOP, "1 CPUs and 1 GPUs", "8 CPUs and 0 GPUs"),
        (asked(gpus=0.5, cpus=2), LAPTOP, "2 CPUs and 0.5 GPUs", "8 CPUs and 0 GPUs"),
        (asked(cpus=65), SERVER, "65 CPUs and 1 GPUs", "64 CPUs and 4 GPUs"),
        (asked(cpus=17, gpus=1), nodes((64, 0), (16, 1)), "17 CPUs and 1 GPUs", "16 CPUs and 1 GPUs"),
        (asked(), nodes((0, 0)), "1 CPUs and 0 GPUs", "0 CPUs and 0 GPUs"),
    ],
)
def test_what_fits_nowhere_is_refused(wish: Resources, machines: list[Node], received: str, largest: str) -> None:
    with pytest.raises(MachineError) as refusal:
        allot(wish, machines)
    assert str(refusal.value) == (
        f"resources: received {received} per trial, but the largest node has {largest}; "
        "use --cpus and --gpus (--gpus 0 trains on the CPU)"
    )


WISHES = st.builds(
    Resources,
    cpus=st.none() | st.floats(0.01, 200),
    gpus=st.none() | st.just(0.0) | st.floats(0.01, 1),
    concurrent=st.none() | st.integers(1, 50),
    data_workers=st.none(),
)
MACHINES = st.lists(st.builds(Node, cpus=st.integers(0, 128), gpus=st.integers(0, 8)), min_size=1, max_size=5)


def held(node: Node, shares: Shares) -> int:
    """Trials that a node holds, by giving them out one at a time."""
    free_cpus, free_gpus, trials = node.cpus + 1e-6, [1 + 1e-6] * int(node.gpus), 0
    while free_cpus >= shares.cpus:
        if shares.gpus:
            gpu = next((i for i, free in enumerate(free_gpus) if free >= shares.gpus), None)
            if gpu is None:
                break
            free_gpus[gpu] -= shares.gpus
        free_cpus -= shares.cpus
        trials += 1
    return trials


@given(WISHES, MACHINES)
def test_nothing_is_given_twice(wish: Resources, machines: list[Node]) -> None:
    try:
        shares = allot(wish, machines)
    except MachineError:
        gpus = float(any(node.gpus for node in machines)) if wish.gpus is None else wish.gpus
        least = Shares(cpus=wish.cpus or 1.0, gpus=gpus, per_node=1, in_total=1)
        assert not any(held(node, least) for node in machines)
        return
    holds = [held(node, shares) for node in machines]
    assert 1 <= shares.per_node <= max(holds)
    assert shares.per_node <= shares.in_total <= sum(holds)
    if wish.concurrent is None:
        assert (shares.per_node, shares.in_total) == (max(holds), sum(holds))
    assert shares.in_total <= (wish.concurrent or shares.in_total)
    assert (wish.cpus in (None, shares.cpus), wish.gpus in (None, shares.gpus)) == (True, True)


def test_this_machine_without_its_gpus() -> None:
    assert local_node(asked(gpus=0)) == Node(cpus=usable_cores(), gpus=0)


@pytest.mark.parametrize(
    "address", ["", "head", "head:", ":6379", "head:port", "head:0", "head:70000", "http://head:80"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(InvalidInputError, match=r"--address: received .*, legal is auto or HOST:PORT"):
        check_address(address)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "ray://127.0.0.1:{}", "[127.0.0.1]:{}"])
def test_an_address_where_something_listens_and_then_does_not(form: str) -> None:
    check_address("auto")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        address = form.format(server.getsockname()[1])
        pool.submit(lambda: server.accept()[0].sendall(b"\0\0\0\4\0\0\0\0\0"))  # HTTP/2's settings, of gRPC
        check_address(address)
    with pytest.raises(MachineError, match=r"received .*, nothing answers there .*; start a cluster"):
        check_address(address)

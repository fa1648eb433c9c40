"""Tasks on boards: what fails, crashes or does not end there, boards that are lost, and servers that are none of ours.

The boards are TVM's own servers on this machine, at a tracker of TVM's.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi
from tvm.rpc import _ffi_api, base

from tests.boards import Cluster
from tvmcompress.passes import UserError
from tvmcompress.targets.remote import board as board_module
from tvmcompress.targets.remote.board import Board
from tvmcompress.targets.remote.boards import BoardPool, Boards
from tvmcompress.targets.remote.devices import devices
from tvmcompress.targets.remote.errors import BoardsLostError, NoBoardError, OtherVersionError, RemoteFailure
from tvmcompress.targets.remote.facts import Facts, parse_facts
from tvmcompress.targets.remote.tracker import Tracker


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of candidates.c."""
    library = tmp_path_factory.mktemp("candidates") / "candidates.so"
    includes = {tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path()}
    source = Path(__file__).parent / "candidates.c"
    command = ["cc", "-shared", "-fPIC", "-O0", *(f"-I{folder}" for folder in includes), source, "-o", library]
    subprocess.run(list(map(str, command)), check=True)
    return library


def call(library: Path, name: str) -> Callable[[Board], int]:
    """A task that calls a function of a library."""
    return lambda board: int(board.load(library)[name]())


def boards(cluster: Cluster, key: str, timeout: float = 20, patience: float = 5) -> Boards:
    return Boards(Tracker(cluster.address), key, timeout, patience)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_arrays_go_there_and_back(cluster: Cluster, board: str) -> None:
    value = np.arange(12, dtype="int8").reshape(3, 4)
    np.testing.assert_array_equal(boards(cluster, board).do(lambda there: there.tensor(value).numpy(), "echoing"), value)


def test_a_board_says_what_it_is(cluster: Cluster, board: str) -> None:
    (device,) = (device for device in devices(Tracker(cluster.address)) if device.key == board)
    assert device.free
    assert device.facts is not None
    assert device.facts.tvm == board_module.TVM_VERSION
    assert (device.triple or "").startswith("x86_64")
    assert device.facts.cpus == int(subprocess.run(["nproc", "--all"], capture_output=True, check=True).stdout)
    assert "avx2" in device.facts.flags or "sse2" in device.facts.flags


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("fail", "error", "the moon is too low"),
        ("read_nowhere", "crash", "calling it crashed on the board at 127.0.0.1"),
        ("stop", "crash", "crashed"),
        ("overflow", "crash", "crashed"),
        ("nothing", "error", "nothing"),
    ],
)
def test_what_goes_wrong_on_a_board_leaves_it_in_the_pool(
    cluster: Cluster, board: str, candidates: Path, name: str, status: str, words: str
) -> None:
    pool = boards(cluster, board)
    with pytest.raises(RemoteFailure, match=re.escape(words)) as caught:
        pool.do(call(candidates, name), "calling it")
    assert caught.value.status == status
    assert pool.lost == []
    # At once, and not when the session's time is over.
    assert pool.do(call(candidates, "answer"), "calling it") == 42


def test_what_does_not_end_is_ended(cluster: Cluster, board: str, candidates: Path) -> None:
    with pytest.raises(RemoteFailure, match="longer than 1 s on the board at .*--rpc-timeout") as caught:
        boards(cluster, board, timeout=1).do(call(candidates, "endless"), "calling it")
    assert caught.value.status == "timeout"
    assert boards(cluster, board).do(call(candidates, "answer"), "calling it") == 42


def test_a_lost_boards_task_goes_to_another(cluster: Cluster, candidates: Path) -> None:
    for _ in range(2):
        cluster.start("pair")
    pool = boards(cluster, "pair")
    seen: list[str] = []

    def task(there: Board) -> int:
        seen.append(there.address)
        if len(seen) == 1:
            cluster.kill(there.address)
        return int(there.load(candidates)["answer"]())

    assert pool.do(task, "counting") == 42
    assert len(set(seen)) == 2
    assert pool.lost == seen[:1]


def test_when_all_are_lost_one_sentence_says_so(cluster: Cluster, candidates: Path) -> None:
    cluster.start("single")
    pool = boards(cluster, "single")

    def task(there: Board) -> int:
        cluster.kill(there.address)
        return int(there.load(candidates)["answer"]())

    with pytest.raises(BoardsLostError, match="counting lost .*key 'single'.*none is left") as caught:
        pool.do(task, "counting")
    assert caught.value.exit_code == 5
    with pytest.raises(NoBoardError, match="no board with key 'single'"):
        pool.do(task, "counting")


def test_a_task_that_boards_die_of_does_not_get_all_of_them(cluster: Cluster, candidates: Path) -> None:
    addresses = [cluster.start("crowd") for _ in range(3)]

    def task(there: Board) -> int:
        cluster.kill(there.address)
        return int(there.load(candidates)["answer"]())

    with pytest.raises(BoardsLostError, match="1 left, which is spared"):
        boards(cluster, "crowd").do(task, "counting")
    (left,) = set(addresses) & set(cluster.servers)
    cluster.kill(left)


def test_a_board_without_power_is_not_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmcompress.targets.remote.boards._GRACE", 0.5)
    address = cluster.start("frozen")

    def task(there: Board) -> bool:
        cluster.pause(there.address)
        return there.answers()

    start = time.monotonic()
    with pytest.raises(BoardsLostError, match="does not answer any more"):
        boards(cluster, "frozen", timeout=1, patience=1).do(task, "asking")
    assert time.monotonic() - start < 10
    cluster.kill(address)


def test_a_wrong_key_names_those_there_are(cluster: Cluster, board: str) -> None:
    with pytest.raises(NoBoardError, match=f"no board with key 'pi9'.*{board}.*--key pi9"):
        boards(cluster, "pi9").require()
    with pytest.raises(NoBoardError, match="no board with key 'pi9'"):
        boards(cluster, "pi9").do(lambda there: there.address, "asking")


def test_a_busy_board_is_waited_for_and_then_given_up(cluster: Cluster, board: str) -> None:
    def task(there: Board) -> None:
        with pytest.raises(NoBoardError, match="became free in 0.2 s"):
            boards(cluster, board, patience=0.2).do(lambda _: None, "asking")
        (device,) = (device for device in devices(Tracker(cluster.address)) if device.key == board)
        assert not device.free

    boards(cluster, board).do(task, "holding it")
    assert boards(cluster, board).do(lambda there: there.address, "asking")


@pytest.mark.parametrize(
    "address", ["", "localhost", "localhost:", "localhost:0", "localhost:99999", ":9190", "a b:1", "http://x:y"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UserError, match="is not the address of a tracker; write HOST:PORT"):
        Tracker(address)


def test_no_tracker() -> None:
    with pytest.raises(UserError, match="there is no tracker at 127.0.0.1:.*rpc_tracker"):
        Tracker(f"127.0.0.1:{free_port()}").queues()


def test_a_server_is_no_tracker(cluster: Cluster) -> None:
    address = cluster.start("mistaken")
    with pytest.raises(UserError, match=f"{address}.*tracker"):
        Tracker(address).queues()
    cluster.kill(address)


@contextmanager
def other_server(cluster: Cluster, key: str, reply: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server that does all that TVM's does until a session begins."""
    host, port = cluster.address.split(":")
    listening = socket.create_server(("127.0.0.1", 0))
    own = listening.getsockname()[1]
    tracker = socket.create_connection((host, int(port)))
    tracker.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
    base.recvall(tracker, 4)
    for message in (
        [base.TrackerCode.UPDATE_INFO, {"key": f"server:{key}", "addr": [None, own]}],
        [base.TrackerCode.PUT, key, (own, f"{key}:0.1"), None],
    ):
        base.sendjson(tracker, message)
        base.recvjson(tracker)

    def serve() -> None:
        line, _ = listening.accept()
        with line:
            base.recvall(line, 4)
            base.recvall(line, struct.unpack("<i", base.recvall(line, 4))[0])
            name = f"server:{key}".encode()
            line.sendall(struct.pack("<ii", base.RPC_CODE_SUCCESS, len(name)) + name)
            line.recv(4096)
            reply(line)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(5)
        tracker.close()
        listening.close()


def test_a_server_of_another_protocol(cluster: Cluster) -> None:
    def refuse(line: socket.socket) -> None:
        # As TVM says it, from src/runtime/rpc/rpc_endpoint.cc.
        versions = "server protocol=0.7.0, client protocol=0.8.0"
        said = f"Server[server:old]: Client protocol version mismatch with the server  {versions}"
        _ffi_api.ReturnException(line.fileno(), said)

    with other_server(cluster, "old", refuse), pytest.raises(OtherVersionError, match="another version of TVM's protocol"):
        boards(cluster, "old").do(lambda there: there.address, "asking")


def test_a_server_that_hangs_up(cluster: Cluster) -> None:
    with other_server(cluster, "rude", lambda line: None), pytest.raises(BoardsLostError, match="key 'rude'"):
        boards(cluster, "rude", patience=0.1).do(lambda there: there.address, "asking")


def test_a_server_of_another_tvm(cluster: Cluster, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Board, "read_facts", lambda self: Facts(tvm="0.24.0"))
    with pytest.raises(OtherVersionError, match=r"serves TVM 0\.24\.0; install apache-tvm==0\.27") as caught:
        boards(cluster, board).do(lambda there: there.address, "asking")
    assert caught.value.exit_code == 2
    monkeypatch.undo()
    assert boards(cluster, board).do(lambda there: there.address, "asking")


def test_without_a_compiler_a_board_is_used_all_the_same(cluster: Cluster, board: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvmcompress.passes import MissingToolError

    def none(architecture: str) -> bytes:
        raise MissingToolError(f"there is no compiler for boards with a {architecture}")

    monkeypatch.setattr(board_module, "helper", none)
    protected, facts = boards(cluster, board).do(lambda there: (there.protected, there.facts), "asking")
    assert not protected
    assert facts.cpu
    assert facts.state() == "governor unknown, clock unknown, temperature unknown"
    assert boards(cluster, board, patience=3).do(lambda there: there.protected, "asking") is False


def test_facts_of_a_raspberry_pi() -> None:
    facts = parse_facts(
        "hwcap=119fff\nhwcap2=0\ncpus=4\nmodel=Raspberry Pi 5 Model B Rev 1.0\0\ngovernor=ondemand\nkhz=2400000\n"
        "millicelsius=51250\ntvm=0.27.0.post1\nnonsense\nflags=\n",
        "cortex-a76",
    )
    assert facts.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert (facts.hwcap, facts.cpus, facts.tvm) == (0x119FFF, 4, "0.27.0.post1")
    assert facts.state() == "governor ondemand, 2,400 MHz, 51 °C"
    assert parse_facts("khz=fast\nmillicelsius=\nhwcap=-\n") == Facts()


def test_a_pool_names_boards_by_target_unless_told_otherwise(cluster: Cluster) -> None:
    from tvmcompress.targets import get_target

    described = get_target("raspberry-pi-4").description
    tracker = Tracker(cluster.address)
    assert BoardPool(tracker).of(described).key == "raspberry-pi-4"
    assert BoardPool(tracker, "mine", 3).of(described).key == "mine"
    assert BoardPool(tracker, "mine", 3).of(described).timeout == 3

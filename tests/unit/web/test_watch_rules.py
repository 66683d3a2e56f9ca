"""Who is left out by a watch, and when."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import socket
import threading

import hypothesis
import pytest
from hypothesis import strategies

from conpaas.services.webservers.agent import watch

GOOD, SLOW, DEAD = watch.Verdict.GOOD, watch.Verdict.SLOW, watch.Verdict.DEAD


def rounds(*verdicts: str, judge: watch.Judge | None = None, begin: float = 0.0) -> list[str]:
    """The names left out after each round; a round is one letter per server, as `g`, `s`, `d`."""
    judge = judge or watch.Judge()
    letters = {"g": GOOD, "s": SLOW, "d": DEAD}
    told = []
    for number, word in enumerate(verdicts):
        heard = {name: letters[letter] for name, letter in zip("ABCDE", word, strict=False)}
        told.append("".join(sorted(judge.hear(heard, begin + number * 0.4))))
    return told


def test_a_dead_server_is_out_at_once():
    assert rounds("ggg", "dgg") == ["", "A"]


def test_a_slow_server_is_out_after_two_failures():
    assert rounds("sgg", "ggg", "sgg", "sgg") == ["", "", "", "A"]


def test_it_comes_back_after_two_good_answers():
    assert rounds("dgg", "ggg", "dgg", "ggg", "ggg") == ["A", "A", "A", "A", ""]


def test_one_that_keeps_failing_must_be_good_for_longer_each_time():
    assert rounds("dg", "gg", "gg", "dg", "gg", "gg", "gg", "gg") == ["A", "A", "", "A", "A", "A", "A", ""]


def test_after_a_calm_minute_all_is_forgotten():
    judge = watch.Judge()
    assert rounds("dg", "gg", "gg", judge=judge) == ["A", "A", ""]
    assert rounds("dg", "gg", "gg", judge=judge, begin=100.0) == ["A", "A", ""]


def test_when_more_than_half_are_slow_they_stay():
    assert rounds("ssg", "ssg", "ssg") == ["", "", ""]
    assert rounds("sgg", "sgg", "ssg") == ["", "A", ""], "the first one's requests would be too much for the rest"
    assert rounds("sg", "sg") == ["", "A"], "half of them is not more than half"


def test_dead_ones_go_even_when_the_others_are_slow():
    assert rounds("dss", "dss") == ["A", "A"]


def test_somebody_always_stays():
    assert rounds("ddd") == [""]
    assert rounds("d") == [""]
    assert rounds("ds", "ds") == ["A", "A"]


def test_a_server_that_is_not_asked_any_more_is_forgotten():
    judge = watch.Judge()
    assert judge.hear({"A": DEAD, "B": GOOD}, 0.0) == {"A"}
    assert judge.hear({"B": GOOD, "C": GOOD}, 0.4) == frozenset()
    assert judge.hear({"A": GOOD, "B": GOOD}, 0.8) == frozenset()


@hypothesis.given(
    strategies.lists(strategies.lists(strategies.sampled_from("gsd"), min_size=4, max_size=4).map("".join), min_size=1, max_size=30)
)
def test_there_is_always_somebody_left_and_good_ones_come_back(history: list[str]):
    judge = watch.Judge()
    told = rounds(*history, judge=judge)
    assert all(len(names) < 4 for names in told)
    assert rounds(*["gggg"] * (watch.MAX_SUCCESSES + 1), judge=judge, begin=20.0)[-1] == ""


# Asking


def target(port: int, protocol: watch.Protocol = watch.Protocol.HTTP) -> watch.Target:
    return watch.Target("127.61.250.1", port, f"127.61.250.1:{port}", "backends", protocol)


@pytest.mark.parametrize(
    ("answer", "protocol", "verdict"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", watch.Protocol.HTTP, GOOD),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", watch.Protocol.HTTP, GOOD),
        (b"HTTP/1.1 503 Busy\r\n\r\n", watch.Protocol.HTTP, SLOW),
        (b"nonsense", watch.Protocol.HTTP, SLOW),
        (b"", watch.Protocol.HTTP, SLOW),
        (None, watch.Protocol.HTTP, SLOW),
        (b"x" * 200_000, watch.Protocol.HTTP, SLOW),
        (b"\1\6\0\1\0\0\0\0", watch.Protocol.FASTCGI, GOOD),
        (b"HTTP/1.1 200 OK\r\n\r\n", watch.Protocol.FASTCGI, SLOW),
        (b"", watch.Protocol.FASTCGI, SLOW),
    ],
)
def test_what_counts_as_an_answer(answer: bytes | None, protocol: watch.Protocol, verdict: watch.Verdict):
    with socket.create_server(("127.61.250.1", 0)) as server:
        done = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert asyncio.run(watch.ask(target(server.getsockname()[1], protocol), 0.3 if answer is None else 10)) is verdict
        done.set()
        thread.join()


def test_a_server_beside_the_proxy_is_asked_by_its_socket(tmp_path: pathlib.Path):
    path = tmp_path / "s"
    beside = dataclasses.replace(target(1, watch.Protocol.FASTCGI), socket=path)
    assert asyncio.run(watch.ask(beside)) is DEAD
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        assert asyncio.run(watch.ask(beside, 0.2)) is SLOW, "nobody takes the connection"

        def serve() -> None:
            for _ in range(2):  # the first has been given up
                connection, _ = server.accept()
                with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    connection.recv(4096)  # closing before it is read would be a reset
                    connection.sendall(b"\1\6\0\1\0\0\0\0")

        thread = threading.Thread(target=serve)
        thread.start()
        assert asyncio.run(watch.ask(beside, 10)) is GOOD
        thread.join()


def test_nobody_there_is_dead():
    assert asyncio.run(watch.ask(target(1))) is DEAD


# Telling


def test_a_watch_that_was_stopped_tells_anew_who_is_out():
    told: list[frozenset[str]] = []
    heard = threading.Event()

    def changed(down: frozenset[str]) -> None:
        told.append(down)
        heard.set()

    nobody = target(1)
    watching = watch.Watch(lambda: [nobody, target(2)], changed)
    with socket.create_server((nobody.ip, 2)) as other:
        other.listen()
        for _ in range(2):
            heard.clear()
            watching.start()
            assert heard.wait(20), "who starts it again knows of nobody that is out"
            watching.stop()
    assert told == [frozenset({nobody.address})] * 2


def test_what_nobody_expected_does_not_end_the_watch():
    rounds: list[str] = []
    again = threading.Event()

    def targets() -> list[watch.Target]:
        rounds.append("")
        if len(rounds) == 1:
            raise ZeroDivisionError
        again.set()
        return []

    watching = watch.Watch(targets, lambda _: None)
    watching.start()
    assert again.wait(20)
    watching.stop()

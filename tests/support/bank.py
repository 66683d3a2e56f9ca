"""A bank, as those who judge databases run one: transfers between accounts, and a journal of those that were acknowledged.

Whatever happens to the servers: the sum over all accounts never changes, every acknowledged transfer counts, none counts twice, none
that was refused counts at all.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pymysql

from tests.support import journal

ACCOUNTS = 24
OPENING = 1000
"""What is in each account at first."""

Ask = Callable[[str], Any]
"""Answers a statement with rows."""


class Bank(journal.Journal):
    """Clients that transfer money. The accounts are in the database that they log in to."""

    table = "transfers"

    def create(self) -> None:
        """Open the accounts."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL)")
            cursor.execute(
                "CREATE TABLE transfers (id BIGINT AUTO_INCREMENT PRIMARY KEY, token CHAR(32) NOT NULL,"
                " source INT NOT NULL, target INT NOT NULL, amount BIGINT NOT NULL)"
            )
            cursor.executemany("INSERT INTO accounts VALUES (%s, %s)", [(number, OPENING) for number in range(ACCOUNTS)])
            connection.commit()

    def change(self, cursor: Any, token: str) -> None:
        """One transfer: both accounts are read and written back by the client, so that what was read too early would show."""
        source, target = random.sample(range(ACCOUNTS), 2)
        cursor.execute("SELECT id, balance FROM accounts WHERE id IN (%s, %s) ORDER BY id FOR UPDATE", (source, target))
        balances = dict(cursor.fetchall())
        amount = random.randint(1, 1 + max(0, balances[source]) // 2)
        for number, balance in ((source, balances[source] - amount), (target, balances[target] + amount)):
            cursor.execute("UPDATE accounts SET balance = %s WHERE id = %s", (balance, number))
        cursor.execute("INSERT INTO transfers (token, source, target, amount) VALUES (%s, %s, %s, %s)", (token, source, target, amount))

    @contextlib.contextmanager
    def watched(self, *clients: journal.Journal) -> Iterator[Watch]:
        """While this lasts, somebody adds up all accounts over and over, with the logins of these clients."""
        watch = Watch()
        ending = threading.Event()
        readers = [threading.Thread(target=watch.look, args=(client, ending)) for client in clients]
        for one in readers:
            one.start()
        try:
            yield watch
        finally:
            ending.set()
            for one in readers:
                one.join()

    def audit(self, where: str, ask: Ask) -> set[str]:
        """The tokens of the transfers that somebody has; it is an error if the books are wrong."""
        transfers = ask("SELECT token, source, target, amount FROM transfers")
        tokens = collections.Counter(str(token) for token, *_ in transfers)
        assert [token for token, times in tokens.items() if times > 1] == [], f"transfers count twice on {where}"
        wanted = dict.fromkeys(range(ACCOUNTS), OPENING)
        for _, source, target, amount in transfers:
            wanted[source] -= amount
            wanted[target] += amount
        found = dict(ask("SELECT id, balance FROM accounts"))
        assert sum(found.values()) == ACCOUNTS * OPENING, f"the sum is wrong on {where}"
        assert found == wanted, f"the accounts of {where} are not what the transfers there make of them"
        return set(tokens)

    def verify(self, where: str, ask: Ask) -> None:
        """Compare the books of a member with what was acknowledged and what was refused, now that nobody writes."""
        tokens = self.audit(where, ask)
        lost, undead = self.acknowledged - tokens, self.refused & tokens
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} transfers are not on {where}"
        assert not undead, f"{len(undead)} of {len(self.refused)} refused transfers are on {where}"

    def verify_at(self, second: int, where: str, ask: Ask) -> None:
        """Compare books that were restored to the begin of a second with the journal; what was under way just then may be there or not."""
        tokens = self.audit(where, ask)
        before = {token for token, (_, told) in self.moments.items() if told < second}
        after = {token for token, (began, _) in self.moments.items() if began >= second}
        assert before <= tokens, f"{len(before - tokens)} of {len(before)} transfers before {second} are not on {where}"
        assert not after & tokens, f"{len(after & tokens)} of {len(after)} transfers from {second} on are on {where}"
        assert not self.refused & tokens, f"refused transfers are on {where}"


@dataclasses.dataclass
class Watch:
    """What those saw who added up all accounts meanwhile."""

    looks: int = 0
    wrong: list[int] = dataclasses.field(default_factory=list)

    def look(self, client: journal.Journal, ending: threading.Event) -> None:
        while not ending.is_set():
            try:
                with contextlib.closing(client.connect()) as connection, connection.cursor() as cursor:
                    while not ending.wait(0.05):
                        cursor.execute("SELECT SUM(balance) FROM accounts")
                        ((found,),) = cursor.fetchall()
                        connection.commit()
                        self.looks += 1
                        if found != ACCOUNTS * OPENING:
                            self.wrong.append(int(found))
            except (pymysql.MySQLError, OSError):
                ending.wait(0.1)

"""The rate limit: a token bucket per owner, in the database, so that replicas share it.

`limits` and slowapi keep such counters in memory or Redis. The first would give each replica buckets of its own,
the second would be another server to run, and the database is there.
"""

from sqlalchemy import select, update

from medgen3d.serving.errors import OwnerBusyError
from medgen3d.serving.queue.database import Database, token_buckets

_BUCKETS = 3  # name of the lock that lets one request at a time take a token


class RateLimiter:
    """Limits how often each owner may ask.

    Args:
        database: Where.
        per_minute: Requests of one owner in the long run.
        burst: Requests of one owner at once, after a pause.
    """

    def __init__(self, database: Database, *, per_minute: int, burst: int) -> None:
        self._database = database
        self._per_second = per_minute / 60
        self._burst = burst

    def take(self, owner: str) -> None:
        """One request of an owner.

        Raises:
            OwnerBusyError: The owner has asked too often.
        """
        with self._database.writing() as connection:
            self._database.lock(connection, _BUCKETS)
            now = self._database.now(connection)
            row = connection.execute(select(token_buckets).where(token_buckets.c.owner == owner)).one_or_none()
            tokens = float(self._burst)
            if row is not None:
                tokens = min(tokens, row.tokens + max(0.0, now - row.at) * self._per_second)
            if tokens >= 1:
                values = {"tokens": tokens - 1, "at": now}
                if row is None:
                    connection.execute(token_buckets.insert().values(owner=owner, **values))
                else:
                    connection.execute(update(token_buckets).where(token_buckets.c.owner == owner).values(**values))
                return
        raise OwnerBusyError(
            f"{owner} asks more often than {self._per_second * 60:g} times a minute. Wait, then ask again.",
            (1 - tokens) / self._per_second,
        )

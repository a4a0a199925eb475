"""Which cases are drawn together, and which of them are missing.

Cases advance in batches of fixed width: batch i holds the numbers from i x width on, whatever was asked for. The cases
beside it in a batch may change the last bits of a case's numbers, so its neighbours must not depend on how many cases
are wanted, nor on which of them exist already. What is drawn and not wanted is dropped.
"""

from collections.abc import Collection


def numbers_in(batch: int, width: int) -> range:
    """The case numbers of a batch."""
    return range(batch * width, (batch + 1) * width)


def wanted_by_batch(count: int, width: int, done: Collection[int]) -> dict[int, list[int]]:
    """Which batches are to be drawn for cases 0..count - 1, and which of their cases are not done yet."""
    missing = {
        batch: [number for number in numbers_in(batch, width) if number < count and number not in done]
        for batch in range(-(-count // width))
    }
    return {batch: numbers for batch, numbers in missing.items() if numbers}

"""Random streams: one run seed, and from it a stream of its own for every named purpose."""

import hashlib


def stream_seed(run_seed: int, *names: str | int) -> int:
    """The seed of the stream called `names` within a run: a number in [0, 2**63).

    SHA-256 and not `hash()`, which differs between processes. Each name is length-prefixed, so that
    ("a", "bc") and ("ab", "c") are different streams.

    Args:
        run_seed: The one seed that a user sets.
        names: What the stream is for, from the general to the particular, such as ("case", 17, "mask_generator").
    """
    digest = hashlib.sha256()
    for part in (run_seed, *names):
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(4, "big") + text)
    return int.from_bytes(digest.digest()[:8], "big") >> 1

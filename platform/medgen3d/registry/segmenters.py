"""The registered segmenter that judges drawn pairs: one that a user names, or the newest of the same training data."""

from medgen3d.registry.pipeline import split_reference
from medgen3d.registry.tracking import Tracking
from medgen3d.registry.versions import LATEST, Version, check_name, find_version, list_versions

STAGE = "segmenter"
AUTO, NONE = "auto", "none"


def find_segmenter(tracking: Tracking, choice: str, trained_on: tuple[str, str] | None) -> Version | None:
    """The segmenter that a choice means; None if there is none.

    Args:
        tracking: Where.
        choice: `NAME@version`, `none`, or `auto`: the newest that was trained on exactly these data.
        trained_on: (name, digest) of the prepared set; only `auto` needs it, and None means no set.

    Raises:
        RegistryError: There is none of this name and version.
    """
    if choice == NONE:
        return None
    if choice != AUTO:
        name, which = split_reference(choice)
        return find_version(tracking, f"{name}.{STAGE}", which or LATEST)
    if trained_on is None:
        return None
    dataset, digest = trained_on
    known = list_versions(tracking, f"{check_name(dataset)}.{STAGE}")
    fitting = [version for version in known if version.tags.get("dataset_digest") == digest]
    return fitting[-1] if fitting else None

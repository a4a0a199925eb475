"""The measurements behind novelty: the nearest training case of every case, and stages' scores of known and new cases.

Here the work is spread over cases; `novelty` and `membership` judge what was found.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from medgen3d.artifacts.prepared_set import PreparedSet
from medgen3d.artifacts.report_parts import Metric
from medgen3d.core.seeds import stream_seed
from medgen3d.evaluation.case_measurements import SetMeasurements
from medgen3d.evaluation.membership import membership_metric, membership_scores
from medgen3d.evaluation.novelty import novelty
from medgen3d.evaluation.section_result import MapItems, SectionResult
from medgen3d.evaluation.sets import LabelledSet, Sets
from medgen3d.evaluation.training_preference import preference_metrics
from medgen3d.measures.fingerprints import likeness

if TYPE_CHECKING:  # torch is loaded when a stage is
    from medgen3d_stages.chain import TrainedStage

MAX_MEMBERS = 40
"""Cases per side of membership inference; a stage scores each of them several times."""


def memorisation(
    sets: Sets,
    train: LabelledSet,
    measured: SetMeasurements,
    stages: "Mapping[str, TrainedStage]",
    map_items: MapItems,
    rng: np.random.Generator,
) -> SectionResult:
    """The section "novelty".

    Args:
        sets: What is compared.
        train: What the stages were trained on.
        measured: Fingerprints of all cases.
        stages: Those that are asked which cases they know, by name; may be empty.
        map_items: Spreads the work over cases.
        rng: Draws resamples.
    """
    prints, num_train = measured.both(lambda case: case.fingerprint), len(measured.train)
    others = [*measured.train, *prints[0]]
    held_out, synthetic = (
        map_items(f"likeness of {kind} cases to training cases", partial(likeness, others=others), cases)
        for kind, cases in zip(("real", "synthetic"), prints, strict=True)
    )
    metrics = preference_metrics(synthetic, held_out, num_train, rng)
    metrics += [_membership(trained, sets.real, train, map_items, rng) for trained in stages.values()]
    ours, theirs = ([each.nearest(num_train) for each in group] for group in (synthetic, held_out))
    return novelty(ours, theirs, sets.synthetic, train, metrics)


def _membership(
    trained: "TrainedStage", real: LabelledSet, train: LabelledSet, map_items: MapItems, rng: np.random.Generator
) -> Metric:
    stage, known, new = trained.stage.name, train.prepared, real.prepared
    if known is None or new is None or known.info.plane != new.info.plane:
        note = "It needs real and training cases from prepared sets with the same plane."
        name = f"novelty.membership.{stage}"
        return Metric(name=name, title=f"Membership inference, {stage}: AUC", value=None, num=0, note=note)
    of_known, of_new = (
        map_items(f"membership, {stage}", partial(_score, trained, prepared), _spread(labelled.case_ids))
        for prepared, labelled in ((known, train), (new, real))
    )
    return membership_metric(stage, of_known, of_new, rng)


def _score(trained: "TrainedStage", prepared: PreparedSet, case_id: str) -> float:
    from medgen3d.artifacts.examples import read_example  # loads torch

    seed = stream_seed(0, "membership", trained.stage.name)
    return membership_scores(trained, read_example(prepared, case_id), seed)


def _spread(case_ids: Sequence[str]) -> list[str]:
    """At most MAX_MEMBERS of the cases, evenly spread."""
    places = np.linspace(0, len(case_ids) - 1, min(MAX_MEMBERS, len(case_ids))).round().astype(int)
    return [case_ids[place] for place in places]

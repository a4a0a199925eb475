"""An engine whose stages are Serve deployments: it sends cases through them and keeps what is finished.

Arrays stay in Ray's object store. A stage hands out references, which go to the next stage as they are; this process
only maps them, to keep them in the job's folder and to hand out the last ones.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

import ray

from medgen3d.config.engine import EngineConfig
from medgen3d.config.experiment import CHAIN
from medgen3d.core.errors import Medgen3dError
from medgen3d.serving.execution.engine import CaseSpec, JobPlan, Progress, UndrawableJobError
from medgen3d.serving.execution.stage_checkpoints import StageCheckpoints
from medgen3d.serving.inference.pipeline_catalog import PipelineCatalog, ServedPipeline
from medgen3d_stages.arrays import Image, Mask

Pair = tuple[Image, Mask]
Drawn = Any
"""A reference to an array in the object store, or an array that was kept."""
_log = logging.getLogger(__name__)


class RayEngine:
    """Draws the cases of jobs on the cluster that it runs in.

    Args:
        stages: Handles of the stages' deployments.
        catalog: The pipelines that are offered.
        config: How many cases at once, and how often the registry is asked.
        identity: Short name of what the results' last bits depend on, of `stage_checkpoints.identity_of`.
    """

    def __init__(
        self, stages: Mapping[str, Any], catalog: PipelineCatalog, config: EngineConfig, identity: str
    ) -> None:
        self._stages = {stage: handle.options(stream=True) for stage, handle in stages.items()}
        self._prepare = {stage: handle.prepare for stage, handle in stages.items()}
        self._catalog, self._config, self._identity = catalog, config, identity
        self._broken: set[str] = set()

    async def pipelines(self) -> list[ServedPipeline]:
        """The pipelines that are offered."""
        return await asyncio.to_thread(self._catalog.all)

    async def find(self, reference: str) -> ServedPipeline:
        """What a client's reference means now.

        Raises:
            RegistryError: There is no such pipeline, or it is not offered.
        """
        return await asyncio.to_thread(self._catalog.find, reference)

    async def accepted(self, reference: str) -> ServedPipeline:
        """The version that a job was accepted for, whether it is still offered or not.

        Raises:
            RegistryError: It is gone.
        """
        return await asyncio.to_thread(self._catalog.version, reference)

    async def watch(self) -> None:
        """Follow the registry until cancelled: a promoted version is made ready, and only then handed out."""
        while True:
            await asyncio.sleep(self._config.poll_s)
            for reference, known in self._catalog.meanings().items():
                try:
                    await self._follow(reference, known)
                except Exception as error:  # the registry is away, or a stage is restarting: the known version stays
                    _log.warning("what %s means now could not be found out: %s", reference, error)

    async def _follow(self, reference: str, known: str) -> None:
        pinned = await asyncio.to_thread(self._catalog.look_up, reference)
        if pinned == known or pinned in self._broken:
            return
        try:
            await asyncio.to_thread(self._catalog.pipeline, pinned)
            await asyncio.gather(*(prepare.remote(pinned) for prepare in self._prepare.values()))
        except Medgen3dError as error:
            self._broken.add(pinned)
            _log.error("%s now means %s, which cannot be used, so %s stays: %s", reference, pinned, known, error)
            return
        self._catalog.settle(reference, pinned)
        _log.info("%s now means %s; jobs that were accepted for %s end on it", reference, pinned, known)

    async def run(self, plan: JobPlan, progress: Progress) -> list[Pair]:
        """Draw all cases; see `medgen3d.serving.execution.engine.Engine.run`.

        The arrays are read-only: of a single case as they lie in the object store, of several mapped from files, so
        that a large job takes no memory here.
        """
        tracker = _ProgressTracker(plan, progress)
        limit = asyncio.Semaphore(self._config.cases_at_once)
        draw = [self._case(plan, number, tracker, limit) for number in range(len(plan.cases))]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(case) for case in draw]
        except BaseExceptionGroup as errors:
            raise _decisive(errors) from None
        return [task.result() for task in tasks]

    async def _case(self, plan: JobPlan, number: int, tracker: "_ProgressTracker", limit: asyncio.Semaphore) -> Pair:
        case, checkpoints = plan.cases[number], StageCheckpoints(plan.folder, number, self._identity)
        async with limit, asyncio.TaskGroup() as keeping:
            steps = _Steps(self._stages, plan, case, number, tracker, checkpoints, keeping)
            finished = await asyncio.to_thread(checkpoints.read, "refiner")
            mask: Drawn = case.mask
            if mask is None:
                mask = await steps.take("mask_generator", case.shape, dict(case.given))
            elif finished is None:
                mask = await asyncio.to_thread(ray.put, mask)  # once, for both stages that need it
            if finished is not None:
                tracker.tell_all(number)
                return finished, await _array(mask)
            image = await steps.take("image_sequence_generator", mask, case.style_seed)
            last = await steps.take("refiner", image, mask, keep=len(plan.cases) > 1)
            pair = await _array(last), await _array(mask)
        if len(plan.cases) == 1:
            return pair
        checkpoints.drop("image_sequence_generator")  # the refined image is there
        return await self._mapped(checkpoints, pair)

    async def _mapped(self, checkpoints: StageCheckpoints, pair: Pair) -> Pair:
        """The same arrays from their files, so that the object store need not hold them until the job ends."""
        stages = ("refiner", "mask_generator")  # a mask that was given is in no file
        image, mask = [await asyncio.to_thread(checkpoints.read, stage) for stage in stages]
        return pair[0] if image is None else image, pair[1] if mask is None else mask


class _Steps:
    """One case on its way through the stages."""

    def __init__(
        self,
        stages: Mapping[str, Any],
        plan: JobPlan,
        case: CaseSpec,
        number: int,
        tracker: "_ProgressTracker",
        checkpoints: StageCheckpoints,
        keeping: asyncio.TaskGroup,
    ) -> None:
        self._stages, self._plan, self._case, self._number = stages, plan, case, number
        self._tracker, self._checkpoints, self._keeping = tracker, checkpoints, keeping

    async def take(self, stage: str, *inputs: Any, keep: bool = True) -> Drawn:
        """What an earlier attempt kept of a stage, or else what the stage draws now."""
        found = await asyncio.to_thread(self._checkpoints.read, stage)
        if found is not None:
            self._tracker.tell(stage, self._number, 1, 1)
            return found
        drawn = await self._draw(stage, inputs)
        if keep:
            self._keeping.create_task(self._keep(stage, drawn))
        return drawn

    async def _draw(self, stage: str, inputs: tuple[Any, ...]) -> Drawn:
        key = f"{self._plan.job_id}/{self._number}"
        answers = self._stages[stage].draw.remote(self._plan.pipeline, key, self._case.seeds[stage], *inputs)
        try:
            async for answer in await answers._to_object_ref_gen():  # references, so that the array need not come here
                told = await answer
                if isinstance(told, str):
                    raise UndrawableJobError(f"case {self._case.case_id}: {told}")
                if not isinstance(told, tuple):
                    self._tracker.tell(stage, self._number, 1, 1)
                    return answer
                self._tracker.tell(stage, self._number, *told)
        except asyncio.CancelledError:
            answers.cancel()
            raise
        raise RuntimeError(f"{stage} ended without a result")

    async def _keep(self, stage: str, drawn: Drawn) -> None:
        array = await _array(drawn)
        with contextlib.suppress(FileNotFoundError):  # the job was given up, and its folder with it
            await asyncio.to_thread(self._checkpoints.write, stage, array)


class _ProgressTracker:
    """Progress of a job in slices of its cases, so that large cases count for more."""

    def __init__(self, plan: JobPlan, progress: Progress) -> None:
        self._depths = [case.shape[0] for case in plan.cases]
        needed = [stage for stage in CHAIN if stage != CHAIN[0] or any(case.mask is None for case in plan.cases)]
        self._done = {stage: [0.0] * len(self._depths) for stage in needed}
        self._progress = progress
        for stage in needed:
            self._show(stage)

    def tell(self, stage: str, number: int, done: int, total: int) -> None:
        self._done[stage][number] = self._depths[number] * done / max(total, 1)
        self._show(stage)

    def tell_all(self, number: int) -> None:
        for stage in self._done:
            self.tell(stage, number, 1, 1)

    def _show(self, stage: str) -> None:
        self._progress(stage, int(sum(self._done[stage])), sum(self._depths))


async def _array(drawn: Drawn) -> Any:
    """The array itself, mapped and not copied."""
    return await drawn if isinstance(drawn, ray.ObjectRef) else drawn


def _decisive(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error that says what becomes of the job: that it cannot be drawn, before anything that may pass."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [errors]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((error for error in leaves if isinstance(error, UndrawableJobError)), leaves[-1])

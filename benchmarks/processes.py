"""Training in two processes beside one: do they learn the same, and how much more do they do?

One process takes every step of the whole batch; two take it together, with half of the batch each. Beside them, one
process of two threads is what a machine with two cores would do anyway, and tells how far what is learned goes apart
only because sums are added in another order. All wait, without computing, while it is not their turn.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from benchmarks.comparison import Record, describe_work
from benchmarks.measure import Parts, interleave, times_faster
from benchmarks.settings import Settings
from benchmarks.variants import FP32
from benchmarks.work import Work
from envs.losses import Batch
from envs.optimisers import weight_optimiser
from envs.steps import training_mode, weight_step
from models.replication import replicated, uses_all_weights
from utils.distributed import joined_processes, num_processes, rank
from utils.errors import UserError
from utils.launching import free_port, place_of

CPU = torch.device("cpu")

CREWS = {"one": (1, 1), "two": (2, 1), "two threads": (1, 2)}
"""Name -> its processes, and the threads of each."""

LEARNING_RATE = 3e-6
"""Large enough that another gradient is seen in the losses that follow, and so small that rounding is not.

If the headline's network did not learn at all, its second loss would differ by 7.4e-5, its tenth by 2.4e-3.

Of SGD, as in policy learning. Adam's first steps are of one size whatever the gradient is, so that rounding decides the
direction of those whose gradient is hardly any, and after five steps shows in the third digit of a loss.
"""

PATIENCE = 10
"""Seconds in which processes part."""

LEAST_STEPS = 9
"""However few rounds are asked for: what is learned is compared over them, and two processes wait for each other, so
that what disturbs one holds up both."""


def compare_processes(work: Work, images_of_each: Sequence[int], settings: Settings) -> Record:
    """Measure steps of the weights of a work under fixed gates; on the CPU.

    Args:
        images_of_each: numbers of images that each of two processes has.

    Returns:
        "work"; "batches": for each of these numbers, "images" of a step; "seconds" of the steps of each crew, by
        round; how many "times_faster" than one process two are; the total "losses" of each crew, step by step; the
        largest of their "differences" from those of one process, relative.
    """
    works = [work.with_values(f"train.batch_size={2 * images}") for images in images_of_each]
    rounds = max(settings.repeats, LEAST_STEPS)
    return {"work": describe_work(work), "batches": [compare_on_batch(of_batch, rounds) for of_batch in works]}


def compare_on_batch(work: Work, rounds: int) -> Record:
    """One record of `compare_processes`."""
    images = work.config.train.batch_size
    with ExitStack() as running:
        crews = {
            name: running.enter_context(crew(work, processes, threads)) for name, (processes, threads) in CREWS.items()
        }
        losses: dict[str, list[float]] = {name: [] for name in crews}
        passes = {name: partial(take_step, members, losses[name]) for name, members in crews.items()}
        interleave(passes, 1, "processes: first steps")
        measured = interleave(passes, rounds, f"processes: {images} images")
    seconds = {name: [parts["total"] for parts in steps] for name, steps in measured.items()}
    return {
        "images": images,
        "seconds": seconds,
        "times_faster": asdict(times_faster(seconds["two"], seconds["one"])),
        "losses": losses,
        "differences": {name: largest_difference(of_crew, losses["one"]) for name, of_crew in losses.items()},
    }


def largest_difference(losses: Sequence[float], than: Sequence[float]) -> float:
    """Of two training curves, relative to the second."""
    return max(abs(loss - other) / abs(other) for loss, other in zip(losses, than, strict=True))


def take_step(members: Sequence[Connection], losses: list[float]) -> Parts:
    """Let the processes of a crew take one step together; adds its loss, and returns the seconds of the slowest.

    Raises:
        UserError: one of them was ended.
    """
    try:
        for member in members:
            member.send(len(losses))
        steps = [member.recv() for member in members]
    except (EOFError, ConnectionError) as error:
        raise UserError(
            "processes: one of them has ended, for the reason above or, where none is told, for lack of memory; choose "
            "a smaller --size."
        ) from error
    losses.append(steps[0]["loss"])
    return {"total": max(step["seconds"] for step in steps)}


@contextmanager
def crew(work: Work, number: int, threads: int) -> Iterator[list[Connection]]:
    """New processes that train one network together, each by its end of a pipe."""
    context = get_context("spawn")
    port = free_port()
    members, processes = [], []
    for own_rank in range(number):
        ours, theirs = context.Pipe()
        environment = place_of(own_rank, number, port)
        process = context.Process(target=take_steps_on_request, args=(work, environment, threads, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        members.append(ours)
    try:
        yield members
    finally:
        for member in members:
            member.close()
        for process in processes:
            process.join(PATIENCE)
            process.kill()


def take_steps_on_request(work: Work, place: dict[str, str], threads: int, requests: Connection) -> None:
    """In a new process: train until the pipe is closed; a request is the seed of a step's dropout."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends without a word; whoever waits has one
    os.environ |= place
    torch.set_num_threads(threads)
    with joined_processes():
        step = training_step(work)
        while True:
            try:
                seed = requests.recv()
            except EOFError:
                return
            torch.manual_seed(seed)
            began = time.perf_counter()
            loss = step()
            requests.send({"loss": loss, "seconds": time.perf_counter() - began})


def training_step(work: Work) -> Callable[[], float]:
    """Steps under fixed gates on this process's part of the batch; each returns the loss of the whole."""
    net, gates = FP32.build(work, CPU), work.gates()
    training_mode(net, fix_bn=False)
    optimiser = weight_optimiser(net, LEARNING_RATE, LEARNING_RATE)
    replica, batch = replicated(net, uses_all_weights(net, gates)), own_part_of(work.batch(CPU))

    def step() -> float:
        return weight_step(replica, gates, batch, work.tasks, work.loss_weights, optimiser)["total"].item()

    return step


def own_part_of(batch: Batch) -> Batch:
    """The samples of a batch that are this process's."""
    return {name: tensor.chunk(num_processes())[rank()] for name, tensor in batch.items()}

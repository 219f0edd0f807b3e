"""A training step with a policy on paper: it writes what it is told to, and remembers what it was taught."""

from __future__ import annotations

from dataclasses import replace

import pytest

from azr_mlx import config
from azr_mlx.executor import Executor
from azr_mlx.generation import fits
from azr_mlx.selfplay.archive import Archive
from azr_mlx.selfplay.environment import SelfPlay
from azr_mlx.selfplay.prompts import Compact
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import Buffer
from azr_mlx.trainer import Trainer
from azr_mlx.types import Case, Completion, Kind, Prompt, Role, Rollout, Stop, Task, Update

STYLE = Compact()
SMALL = replace(
    config.Config(),
    tasks=config.TasksConfig(references=1, induction_pairs=4),
    batch=config.BatchConfig(proposals=2, attempts=4, solves=2, solve_group=1),
    advantage=config.AdvantageConfig(divide_by_std=False),
    buffer=config.BufferConfig(seed_size=3),
)


class PaperSession:
    """What was submitted last is answered first, so that rows end in an order of their own."""

    def __init__(self, policy: Paper) -> None:
        self.policy = policy
        self.submitted = 0
        self.open: list[tuple[int, int, Prompt]] = []

    def submit(self, prompts, n=1, *, max_tokens):
        counts = [n] * len(prompts) if isinstance(n, int) else n
        for prompt, count, _ in zip(prompts, counts, max_tokens, strict=True):
            self.open += [(self.submitted, j, prompt) for j in reversed(range(count))]
            self.submitted += 1

    def __iter__(self):
        while self.open:
            i, j, prompt = self.open.pop()
            self.policy.answered.append(prompt)
            yield i, j, self.policy.write(prompt, j)


class Paper:
    """Proposes `f(a) = a + n` with a new n each time; solves right on every `hit`-th sample."""

    def __init__(self, hit: int = 2) -> None:
        self.hit = hit
        self.proposed = 0
        self.taught: list[tuple[Rollout, float]] = []
        self.seeds: list[tuple[int, ...]] = []
        self.answered: list[Prompt] = []  # what was answered, in order

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def generate(self, *, seed, **options):
        self.seeds.append(tuple(seed))
        return PaperSession(self)

    def write(self, prompt, j):
        text = self.propose(prompt) if prompt.role is Role.PROPOSE else self.solve(prompt, j)
        return Rollout(prompt, (1, 2), Completion((3,) * len(text), (0.0,) * len(text), text, Stop.EOS))

    def propose(self, prompt):
        self.proposed += 1
        if prompt.kind is Kind.INDUCTION:
            return STYLE.reply(prompt, "hint", *(str(self.proposed + i) for i in range(4)))
        return STYLE.reply(prompt, f"def f(a):\n    return a + {self.proposed}", "1")

    def solve(self, prompt, j):
        if j % self.hit:
            return STYLE.reply(prompt, "'wrong'")
        case = prompt.task.cases[0]
        answers = {Kind.DEDUCTION: case.output, Kind.ABDUCTION: case.input, Kind.INDUCTION: prompt.task.program}
        return STYLE.reply(prompt, answers[prompt.kind])

    def update(self, rollouts, advantages):
        self.taught = list(zip(rollouts, advantages, strict=True))
        return Update(0, 0, 0, 0, 0, 0, 0, 0, 0, len(rollouts), 0)


@pytest.fixture(scope="module")
def executor():
    with Executor() as running:
        yield running


def trainer(executor, policy, settings=SMALL) -> Trainer:
    archive = Archive(executor) if settings.buffer.archive else None
    proposer, solver = Proposer(STYLE, executor, settings.tasks), Solver(STYLE, executor)
    short = fits(policy.encode, settings.sampling.prompt_tokens)
    playing = SelfPlay(settings, proposer, solver, Buffer(100), short, archive=archive)
    made = Trainer(settings, policy, [playing])
    made.prepare()
    return made


def test_seeding_fills_every_kind_without_teaching(executor):
    policy = Paper()
    made = trainer(executor, policy)
    assert [len(tasks) for tasks in made.tasks().values()] == [3, 3, 3]
    assert policy.taught == []


def test_a_step_proposes_attempts_and_solves_every_kind(executor):
    policy = Paper(hit=2)
    step = trainer(executor, policy).train_step(0)
    assert [len(step.proposals), len(step.attempts), len(step.solutions)] == [6, 24, 6]
    assert {one.solve_rate for one in step.proposals} == {0.5}
    assert {one.reward for one in step.proposals} == {0.5}
    assert len(policy.taught) == 36


def test_each_of_several_proposals_from_one_prompt_is_paid_for_its_own_task(executor):
    class Uneven(Paper):
        """Solves the tasks of even numbers always, the others on every second sample."""

        def solve(self, prompt, j):
            self.hit = 1 if int(prompt.task.cases[0].output) % 2 else 2
            return super().solve(prompt, j)

    grouped = config.with_values(SMALL, {"batch.proposals": 4, "batch.propose_group": 4, "tasks.kinds": ("deduction",)})
    step = trainer(executor, Uneven(), grouped).train_step(0)
    assert len({one.rollout.prompt.text for one in step.proposals}) == 1
    for one in step.proposals:
        assert one.solve_rate == (1.0 if int(one.verdict.task.cases[0].output) % 2 else 0.5)
    assert sorted(one.solve_rate for one in step.proposals) == [0.5, 0.5, 1.0, 1.0]


def test_a_program_of_which_the_archive_is_full_pays_less(executor):
    class Stale(Paper):
        """Its programs differ in a constant and in a name, or in what they are made of, by turns."""

        def propose(self, prompt):
            self.proposed += 1
            stale = f"def f(v{self.proposed}):\n    return {self.proposed} + v{self.proposed}"
            return STYLE.reply(
                prompt, stale if self.proposed % 2 else f"def f(a):\n    return [a] * {self.proposed}", "1"
            )

    words = {"tasks.kinds": ("deduction",), "buffer.seed_size": 1, "buffer.archive": True, "reward.crowded": 0.4}
    made = trainer(executor, Stale(), config.with_values(SMALL, words))
    made.environments[0].archive.add(
        [Task(Kind.DEDUCTION, f"def f(x):\n    return x + {i}", (Case("1", "1"),)) for i in range(7)]
    )
    first, second = made.train_step(0).proposals
    # One program of the first task, seven of one skeleton: two sorts, four of each on average.
    assert (first.crowding, second.crowding) == (pytest.approx(7 / 11), 0.0)
    assert (first.reward, second.reward) == (pytest.approx(0.5 - 0.4 * 7 / 11), 0.5)


def test_the_archive_counts_seeds_and_every_chosen_program_once(executor):
    made = trainer(executor, Paper(), config.with_values(SMALL, {"buffer.archive": True}))
    assert (
        sum(cell.count for cell in made.environments[0].archive.cells.values()) == 6
    )  # deductions and abductions; others are lent
    step = made.train_step(0)
    assert sum(cell.count for cell in made.environments[0].archive.cells.values()) == 10
    assert step.metrics["cells/filled"] == len(made.environments[0].archive)


def test_edited_programs_are_new_tasks_that_are_practised_and_kept(executor):
    words = {"batch.mutations": 3, "buffer.archive": True, "tasks.kinds": ("deduction", "induction")}
    made = trainer(executor, Paper(), config.with_values(SMALL, words))
    game = made.environments[0]
    before = {task.program for task in game.buffer.tasks(Kind.DEDUCTION)}
    step = made.train_step(0)
    assert game.edited
    assert all(task.kind is Kind.DEDUCTION and task.step == 0 and task.program not in before for task in game.edited)
    programs = {task.program for task in game.edited}
    assert programs <= {task.program for task in game.buffer.tasks(Kind.DEDUCTION)}
    assert programs <= {one.rollout.prompt.task.program for one in step.solutions}
    assert step.metrics["mutations/tasks"] == len(game.edited)
    # Seeds, proposals and edits, each once.
    assert sum(cell.count for cell in game.archive.cells.values()) == len(game.buffer.tasks(Kind.DEDUCTION))


def test_a_task_that_is_always_solved_pays_its_proposer_nothing(executor):
    step = trainer(executor, Paper(hit=1)).train_step(0)
    assert {one.reward for one in step.proposals} == {-0.5}


def test_right_attempts_are_praised_and_wrong_ones_blamed(executor):
    policy = Paper(hit=2)
    trainer(executor, policy).train_step(0)
    signs = {True: set(), False: set()}
    for rollout, advantage in policy.taught:
        if rollout.prompt.role is Role.SOLVE:
            signs["wrong" not in rollout.completion.text].add(advantage > 0)
    assert signs == {True: {True}, False: {False}}


def test_attempts_pay_the_proposal_that_they_name(executor):
    """Proposals end in another order than they were asked in, and only some are tasks: nothing goes by position."""

    class Uneven(Paper):
        def propose(self, prompt):
            text = super().propose(prompt)
            return text if self.proposed % 3 else "no task"

        def solve(self, prompt, j):
            # How often a program is solved is written in it: f(a) = a + n is right in n % 5 of 4 attempts, at most.
            number = int(prompt.task.program.rpartition("+")[2]) if "+" in prompt.task.program else 0
            return super().solve(prompt, 0 if j < number % 5 else 1)

    settings = replace(SMALL, batch=replace(SMALL.batch, proposals=6), tasks=replace(SMALL.tasks, kinds=("deduction",)))
    step = trainer(executor, Uneven(), settings).train_step(0)
    tasks = [one for one in step.proposals if one.verdict.task is not None]
    assert len(tasks) == 4
    for one in tasks:
        number = int(one.verdict.task.program.rpartition("+")[2])
        assert one.solve_rate == number % 5 / 4


def test_new_tasks_are_in_the_buffer_and_a_repeat_is_not_new(executor):
    policy = Paper()
    made = trainer(executor, policy)
    before = len(made.tasks()[Kind.DEDUCTION])
    made.train_step(0)
    assert len(made.tasks()[Kind.DEDUCTION]) == before + 2
    policy.proposed = 1
    made.train_step(1)
    policy.proposed = 1
    again = made.train_step(2)
    assert {one.verdict.why for one in again.proposals if one.kind is not Kind.INDUCTION} == {"duplicate"}
    assert {one.reward for one in again.proposals if not one.verdict.valid} == {-1.0}


def test_the_paper_s_loop_trains_neither_attempts_nor_if_told_proposals(executor):
    policy = Paper()
    settings = replace(SMALL, batch=replace(SMALL.batch, train_attempts=False, train_proposer=False))
    trainer(executor, policy, settings).train_step(0)
    assert len(policy.taught) == 6


def test_truncated_solutions_are_left_out_of_the_loss(executor):
    class Cut(Paper):
        def write(self, prompt, j):
            rollout = super().write(prompt, j)
            if prompt.role is Role.SOLVE:
                return replace(rollout, completion=replace(rollout.completion, stop=Stop.LENGTH))
            return rollout

    policy = Cut()
    step = trainer(executor, policy).train_step(0)
    assert {rollout.prompt.role for rollout, _ in policy.taught} == {Role.PROPOSE}
    assert step.masked == 30


def test_every_phase_of_every_step_draws_from_its_own_key(executor):
    policy = Paper()
    made = trainer(executor, policy)
    policy.seeds.clear()
    made.train_step(0)
    made.train_step(1)
    assert len(set(policy.seeds)) == len(policy.seeds) == 2


def test_one_kind_can_be_played_alone(executor):
    settings = replace(SMALL, tasks=replace(SMALL.tasks, kinds=("deduction",)))
    step = trainer(executor, Paper(), settings).train_step(0)
    assert {one.kind for one in step.proposals} == {Kind.DEDUCTION}


def test_a_step_can_be_repeated_to_the_byte(executor):
    steps = [trainer(executor, Paper()).train_step(0) for _ in range(2)]
    assert steps[0].advantages == steps[1].advantages
    assert [one.rollout for one in steps[0].solutions] == [one.rollout for one in steps[1].solutions]


def roles(executor, overlap: bool) -> list[Role]:
    """Who speaks in a step of twelve proposals, in order."""
    settings = replace(
        SMALL, batch=replace(SMALL.batch, proposals=4), sampling=replace(SMALL.sampling, overlap=overlap)
    )
    policy = Paper()
    made = trainer(executor, policy, settings)
    policy.answered.clear()
    made.train_step(0)
    return [prompt.role for prompt in policy.answered]


def test_a_confirmed_task_is_attempted_while_others_are_proposed(executor):
    order = roles(executor, overlap=True)
    assert order.index(Role.SOLVE) < len(order) - 1 - order[::-1].index(Role.PROPOSE)


def test_without_overlap_attempts_wait_for_the_last_proposal(executor):
    assert roles(executor, overlap=False)[:12] == [Role.PROPOSE] * 12


def test_overlap_changes_the_order_of_a_step_and_nothing_that_is_learned(executor):
    learned = []
    for overlap in (True, False):
        settings = replace(SMALL, sampling=replace(SMALL.sampling, overlap=overlap))
        policy = Paper()
        step = trainer(executor, policy, settings).train_step(0)
        learned.append([(one.kind, one.role, one.reward) for one in step.trained])
    assert sorted(learned[0]) == sorted(learned[1])

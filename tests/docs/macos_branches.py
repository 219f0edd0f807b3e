"""Every place where the package behaves otherwise on macOS, and the test or CI step that covers it.

`python -m tests.docs.macos_branches docs/macos.md` writes the table into the page, between its two marks. A place that
has no entry here, an entry without a place, and an entry whose test or step does not exist are faults
(tests/docs/test_macos.py).
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- branches: begin -->", "<!-- branches: end -->"
LADDER = "tests/planner/test_ladder.py"
EMULATED, MAC_TESTS = "tests/executor/test_on_a_mac.py", "CI macos: The executor and the attacks on it"

# place -> what is done on macOS, and where it is covered: `file::test` runs here, on Linux; `CI job: step` on a Mac.
COVERED: dict[str, tuple[str, tuple[str, ...]]] = {
    "bench/command.py _machine": (
        "the system's version in the file", ("CI macos: Measure this Mac",)),
    "cli.py train": (
        "`azr train` is supervised by default",
        ("tests/run/test_runs.py::test_the_command_line_supervises_when_it_is_asked_to",
         "tests/run/test_runs.py::test_a_run_that_the_system_aborts_goes_on_and_ends_as_if_it_had_not",
         "CI macos: Two steps of training")),
    "doctor.py python": ("an Intel Python is refused", ("CI macos: What the doctor finds",)),
    "doctor.py sandbox": ("no advice about a package of Linux", ("CI macos: What the doctor finds",)),
    "doctor.py mlx": (
        "a CPU is wrong on a Mac; version, watchdog, pressure, sleep and open files are looked at",
        ("tests/test_doctor.py::test_what_only_a_mac_has_is_named_one_by_one", "CI macos: What the doctor finds")),
    "doctor.py record": ("names the system", ("tests/test_doctor.py::test_a_report_is_json_without_the_person",)),
    "executor/confine.py": (
        "which system this is", (f"{EMULATED}::test_it_starts_confined_and_says_so", MAC_TESTS)),
    "executor/confine.py seccomp_supported": (
        "no filter of system calls", (f"{EMULATED}::test_it_starts_confined_and_says_so",)),
    "executor/pool.py": (
        "the layer that a start does without",
        (f"{EMULATED}::test_standard_goes_on_with_what_holds_and_says_so_once", MAC_TESTS)),
    "executor/slots.py": (
        "no orphan is ended by the kernel",
        (f"{EMULATED}::test_whoever_is_killed_takes_a_sleeping_program_along", MAC_TESTS)),
    "executor/slots.py Slot.kill": (
        "the lifeline ends a slot, not a signal",
        (f"{EMULATED}::test_closing_leaves_no_process_no_descriptor_and_no_folder", MAC_TESTS)),
    "executor/system.py cpu_seconds": (
        "processor time by proc_pid_rusage",
        (f"{EMULATED}::test_programs_end_as_they_should", MAC_TESTS)),
    "executor/system.py memory_bytes": (
        "footprint by proc_pid_rusage; refused is told apart from gone",
        (f"{EMULATED}::test_standard_goes_on_with_what_holds_and_says_so_once",
         f"{EMULATED}::test_programs_end_as_they_should", MAC_TESTS)),
    "executor/system.py threads": (
        "threads by proc_pidinfo",
        ("tests/executor/test_suite_on_a_mac.py::test_with_seatbelt_the_attacks_are_contained", MAC_TESTS)),
    "executor/system.py arguments": (
        "the trial reads arguments by sysctl",
        (f"{EMULATED}::test_it_starts_confined_and_says_so", MAC_TESTS)),
    "executor/system.py hide_from_children": (
        "minherit in place of madvise",
        (f"{EMULATED}::test_what_a_program_wrote_is_hidden_from_the_next", MAC_TESTS)),
    "executor/system.py unlock": (
        "flags and access lists go before clean-up",
        (f"{EMULATED}::test_flags_and_access_lists_go_before_a_box_is_removed", MAC_TESTS)),
    "executor/watch.py": (
        "ru_maxrss counts bytes", (f"{EMULATED}::test_programs_end_as_they_should", MAC_TESTS)),
    "executor/zygote.py Slot.start": (
        "keeper and Seatbelt in place of namespaces, landlock and seccomp",
        (f"{EMULATED}::test_it_starts_confined_and_says_so",
         f"{EMULATED}::test_what_the_slot_did_is_allowed_and_what_it_tried_denied", MAC_TESTS)),
    "executor/zygote.py Slot._environment": (
        "times are UTC", (f"{EMULATED}::test_times_are_those_of_nowhere", MAC_TESTS)),
    "executor/zygote.py Slot._trial": (
        "the footprint of a confined child is asked for",
        (f"{EMULATED}::test_it_starts_confined_and_says_so", MAC_TESTS)),
    "executor/zygote.py Slot._confine": (
        "no signal at the parent's death", (f"{EMULATED}::test_whoever_is_killed_takes_a_sleeping_program_along",)),
    "executor/zygote.py Slot._read_job": (
        "no limit of address space", (f"{EMULATED}::test_programs_end_as_they_should", MAC_TESTS)),
    "executor/zygote.py _start_inside": (
        "`sandbox-exec` where the function is missing",
        (f"{EMULATED}::test_where_the_function_is_missing_the_command_confines",)),
    "model/cpu_kernels.py slow_exponential": ("Metal's own kernels", ("CI macos: Two steps of training",)),
    "model/device.py prepare": ("no OpenBLAS", ("CI macos: Two steps of training",)),
    "model/metal.py relax_watchdog": (
        "the variable of the GPU's watchdog, before MLX is imported",
        ("tests/model/test_metal.py::test_it_is_set_when_mlx_is_first_imported", "CI macos: Two steps of training")),
    "model/metal.py memory_pressure": (
        "pressure by sysctl",
        ("tests/model/test_metal.py::test_a_mac_says_how_short_of_memory_it_is",
         "tests/model/test_metal.py::test_pressure_halves_the_rows_and_says_so")),
    "model/openblas.py accelerate": ("no OpenBLAS", ("CI macos: Two steps of training",)),
    "planner/machine.py here": (
        "chip, memory and wired limit by sysctl", ("CI macos: Plan for this Mac",)),
    "planner/machine.py mac_here": (
        "the same, without importing MLX",
        (f"{LADDER}::test_a_mac_whose_chip_is_not_in_the_table_is_taken_for_a_lesser_one",)),
    "run/wakefulness.py awake": (
        "`caffeinate` beside the run",
        ("tests/run/test_wakefulness.py::test_the_tool_runs_as_long_as_the_run", "CI macos: Two steps of training")),
    "run/wakefulness.py _clocks": (
        "clocks with and without sleep",
        ("tests/run/test_wakefulness.py::test_the_clocks_of_this_machine_agree_while_it_is_awake",
         "tests/run/test_wakefulness.py::test_sleep_is_told_from_slowness")),
}  # fmt: skip

_NAMES = {"DARWIN", "LINUX", "ENDS_ORPHANS"}


def places() -> set[str]:
    """Functions and modules of the package that ask which system they run on."""
    found = set()
    for path in sorted((ROOT / "azr_mlx").rglob("*.py")):
        name = str(path.relative_to(ROOT / "azr_mlx"))
        found |= {" ".join(filter(None, (name, where))) for where in _asking(ast.parse(path.read_text()))}
    return found


def _asking(tree: ast.Module) -> Iterator[str]:
    """Qualified names of the functions, or "" for the module, in which a system is asked for."""

    def visit(node: ast.AST, where: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            where = (*where, node.name)
        if isinstance(node, ast.Attribute) and (
            node.attr in _NAMES or (node.attr == "platform" and getattr(node.value, "id", "") == "sys")
        ):
            yield ".".join(where)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in _NAMES:
            yield ".".join(where)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, where)

    yield from visit(tree, ())


def exists(cover: str) -> bool:
    """Whether a test, or a step of ci.yml, is there."""
    if cover.startswith("CI "):
        job, _, step = cover.removeprefix("CI ").partition(": ")
        text = (ROOT / ".github/workflows/ci.yml").read_text()
        block = re.search(rf"^  {job}:\n(.*?)(?=^  \w|\Z)", text, re.MULTILINE | re.DOTALL)
        return block is not None and f"- name: {step}\n" in block.group(1)
    file, _, test = cover.partition("::")
    return (ROOT / file).is_file() and f"def {test}(" in (ROOT / file).read_text()


def table() -> str:
    rows = ["| place in `azr_mlx/` | on macOS | covered by |", "|---|---|---|"]
    for place, (what, covers) in sorted(COVERED.items()):
        shown = "; ".join(f"`{cover}`" if "::" in cover else cover for cover in covers)
        rows.append(f"| `{place}` | {what} | {shown} |")
    return "\n".join(rows)


def written(page: str) -> str:
    """The page with a fresh table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written(file.read_text(encoding="utf-8")), encoding="utf-8")

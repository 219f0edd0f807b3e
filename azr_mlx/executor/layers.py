"""What confines programs on this machine: the layers that hold, and what a trial found open all the same."""

from __future__ import annotations

from dataclasses import dataclass, field


class SandboxUnavailable(RuntimeError):
    """Level `strict` was asked for, and this machine offers no sufficient confinement."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """Which layers of confinement hold: `active` names, and `missing` maps the others to the reason.

    `open` maps "files", "network" or "processes" to what a confined child could do at the start of the first slot
    though the layers are active (trial.py).
    """

    level: str
    active: tuple[str, ...]
    missing: dict[str, str]
    open: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> bool:
        """Whether programs are kept from the user's files, contents and metadata."""
        layers = set(self.active)
        # landlock alone leaves modes, times and attributes to be changed; the filter denies that.
        return "files" not in self.open and bool({"root", "seatbelt"} & layers or {"landlock", "seccomp"} <= layers)

    @property
    def network(self) -> bool:
        """Whether programs are kept from the network."""
        return "network" not in self.open and bool({"namespaces", "seccomp", "seatbelt"} & set(self.active))

    @property
    def processes(self) -> bool:
        """Whether programs are kept from starting, and from signalling, other processes."""
        return "processes" not in self.open and bool({"seccomp", "seatbelt"} & set(self.active))

    @property
    def memory(self) -> bool:
        """Whether something holds programs to their memory limit: on macOS the slot's watch, if it may look."""
        return "footprint" not in self.missing

    @property
    def confined(self) -> bool:
        return self.files and self.network and self.processes

    def lacking(self) -> str:
        """What is missing or open, for a message."""
        said = [f"{name} ({why})" for name, why in self.missing.items()]
        said += [f"open: {what} ({how})" for what, how in self.open.items()]
        return "; ".join(said) or "no layer is known for this system"

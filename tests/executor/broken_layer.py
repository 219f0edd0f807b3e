"""A zygote in which one layer of Linux breaks what it confines, in place of refusing.

`broken_layer.py LAYER zygote.py SETTINGS`. As a kernel or a security module might whose rules we do not know; the
executor must come up all the same.
"""

from __future__ import annotations

import os
import runpy
import sys
import types


def main() -> None:
    layer, script, settings = sys.argv[1:4]
    sys.path[0] = os.path.dirname(script)
    sys.argv[:] = [script, settings]
    package = os.path.dirname(os.path.dirname(os.path.dirname(script)))
    for name, path in (("azr_mlx", f"{package}/azr_mlx"), ("azr_mlx.executor", f"{package}/azr_mlx/executor")):
        made = types.ModuleType(name)
        made.__path__ = [path]
        sys.modules[name] = made
    from azr_mlx.executor import confine

    def end(*given: object) -> None:
        os._exit(9)  # the first process of a namespace cannot kill itself

    def nothing_at_all(read: object, write: object) -> tuple[int, int]:
        return real_ruleset([], [])

    real_ruleset = confine.landlock_ruleset
    real_root = confine.new_root
    if layer == "seccomp":
        confine.Seccomp.install = end  # type: ignore[method-assign, assignment]
    elif layer == "landlock":
        confine.landlock_ruleset = nothing_at_all  # type: ignore[assignment]
    elif layer == "capabilities":
        confine.drop_capabilities = end
    elif layer == "root":

        def unreadable(box: str, extra: object = ()) -> None:
            real_root(box)
            os.chroot("/dev")

        confine.new_root = unreadable  # type: ignore[assignment]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()

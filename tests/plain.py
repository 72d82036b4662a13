"""Tests as plain functions named test_*, run by the file that has them: no framework."""

import traceback
from collections.abc import Callable
from typing import Any


class Skipped(Exception):
    """What this test needs is not here."""


def run(names: dict[str, Any]) -> int:
    """Run the tests of a module's globals() in their order; its exit status."""
    tests: list[tuple[str, Callable[[], None]]] = [
        (name, test) for name, test in names.items() if name.startswith("test_")
    ]
    passed = failed = skipped = 0
    for name, test in tests:
        try:
            test()
            passed += 1
        except Skipped as reason:
            skipped += 1
            print(f"skipped {name}: {reason}")
        except Exception:  # a test may fail in any way
            failed += 1
            print(f"FAILED {name}")
            traceback.print_exc()
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0

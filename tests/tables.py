"""Tables of cases in one test: for rooms whose tests are too many and too quick to be counted one by one."""

import functools
from typing import Any, Callable, Iterable, Sequence, Union


def each(names: Union[str, Sequence[str]], cases: Iterable[Any], ids: Any = None) -> Callable[[Any], Any]:
    """Run a test for every case of a table, and fail with all the cases that failed.

    The arguments are those of ``pytest.mark.parametrize``; decorators can be stacked. The test takes no fixtures.
    """
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    rows = [case if len(keys) > 1 else (case,) for case in cases]
    assert rows, "a table without cases tests nothing"

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**outer: Any) -> None:
            failures = []
            for row in rows:
                case = dict(zip(keys, row))
                try:
                    test(**case, **outer)
                except Exception as error:
                    failures.append((case, error))
            if failures:
                told = "\n".join(f"  {case}: {type(error).__name__}: {error}" for case, error in failures)
                raise AssertionError(f"{len(failures)} of {len(rows)} cases failed:\n{told}") from failures[0][1]

        del run.__wrapped__  # type: ignore[attr-defined]  # pytest would look for the arguments as fixtures
        return run

    return decorate

"""Every test here may start threads."""

from tests.threads import no_thread_stays

__all__ = ["no_thread_stays"]

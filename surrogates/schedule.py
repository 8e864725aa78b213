"""AbstractSchedule: the learning rate over the planned steps."""

from abc import abstractmethod

from headrace.platform.spec import Spec


class AbstractSchedule(Spec):
    """The spec of a learning-rate schedule over the planned steps; it is its own schedule, with a method.

    A new schedule is a subclass with `kind: Literal["its_name"] = "its_name"`, in a file of its own, named in the tuple
    `SCHEDULES` of `schedules/__init__.py` or in an entry point of the group `headrace.schedules`.
    """

    @abstractmethod
    def factor(self, step: int, steps: int) -> float:
        """The share of the peak learning rate, from 0 to 1, that step `step` (from 0) of `steps` uses."""

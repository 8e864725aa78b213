"""Errors: what a user reads, and the exit status."""

import pickle

import pytest

from headrace.platform.errors import Fault, HeadraceError, InputError, RunFailed, nearest


def test_a_fault_reads_as_a_sentence():
    fault = Fault(where="training.batch_size", value="0", expected="a positive number", advice="Try 16.")
    assert str(fault) == "training.batch_size is 0; expected a positive number. Try 16."
    assert str(Fault(where="data", value="", expected="a mapping")) == "data: expected a mapping."


def test_an_input_error_tells_all_faults():
    faults = [Fault(where="a", value="1", expected="2"), Fault(where="b", value="3", expected="4", advice="So.")]
    error = InputError(faults)
    assert str(error) == "a is 1; expected 2.\nb is 3; expected 4. So." and error.faults == tuple(faults)
    assert InputError.single("a", "1", "2").faults == (faults[0],)


def test_errors_end_with_their_exit_status():
    assert (InputError([]).exit_status, RunFailed("lost").exit_status, HeadraceError().exit_status) == (2, 1, 1)
    assert issubclass(InputError, HeadraceError) and issubclass(RunFailed, HeadraceError)


def test_an_input_error_comes_back_whole_from_another_process():
    error = InputError.single("recipe.yaml", "missing", "a recipe", "Look again.")
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, InputError) and back.faults == error.faults and str(back) == str(error)


@pytest.mark.parametrize(
    ("word", "advice"),
    [("multigird", 'Did you mean "multigrid"?'), ("direkt", 'Did you mean "direct"?'), ("zzz", ""), ("", "")],
)
def test_the_nearest_word(word: str, advice: str):
    assert nearest(word, {"multigrid": 1, "direct": 2}) == advice

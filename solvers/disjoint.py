"""Disjoint: how Numba compiles a loop whose arguments do not overlap."""

from numba.core.compiler import Compiler


class Disjoint(Compiler):
    """Compiles for arguments that do not overlap where they are written, as `restrict` does in C."""

    def __init__(self, typingctx, targetctx, library, args, return_type, flags, locals) -> None:  # type: ignore[no-untyped-def]  # noqa: A002, ANN001, E501
        flags.noalias = True
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)

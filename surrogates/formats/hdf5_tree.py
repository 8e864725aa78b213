"""The datasets of an HDF5 file that stand in the file itself: nothing that leads to another file is followed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.platform.errors import InputError
from headrace.surrogates.intake.arrays import Container, SourceArray
from headrace.surrogates.intake.layout import ATTRIBUTE, Layout
from headrace.surrogates.intake.origin import ORIGIN, completed
from headrace.surrogates.intake.sniffing import not_of

if TYPE_CHECKING:
    import h5py


@dataclass
class Tree:
    """What stands in a file.

    Attributes:
        path: of the file.
        file: open.
        datasets: by their path.
        groups: by their path, the root as "".
        refused: the paths that lead to another file, with where they lead.
    """

    path: Path
    file: "h5py.File"
    datasets: dict[str, "h5py.Dataset"] = field(default_factory=dict)
    groups: dict[str, "h5py.Group"] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str | None:
        """A text that stands as an attribute of the root, or as a dataset; None when it is not there.

        Raises:
            InputError: it stands in another file.
        """
        if name in self.refused:
            raise InputError.single(f"{self.path}: {name}", self.refused[name], "text in the file itself")
        found = self.file.attrs.get(name)
        if found is None and name in self.datasets and self.datasets[name].shape == ():
            found = self.datasets[name][()]
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else None if found is None else str(found)

    def layout(self) -> Layout | None:
        """The layout that Headrace wrote into the file.

        Raises:
            InputError: it is damaged.
        """
        text = self.text(ATTRIBUTE)
        return None if text is None else Layout.from_json(text, str(self.path))

    def arrays(self) -> dict[str, SourceArray]:
        """The datasets as arrays, with the names of their axes and their units where the file says them."""
        return {name: described(dataset) for name, dataset in self.datasets.items()}


def exported(tree: Tree) -> Container | None:
    """The samples of a file that Headrace exported; None of another one.

    Raises:
        InputError: what it says of itself is damaged.
    """
    text, layout = tree.text(ORIGIN), tree.layout()
    if text is None or layout is None:
        return None
    return completed(Container(path=tree.path, arrays=tree.arrays(), layout=layout, refused=tree.refused), text)


@contextmanager
def open_tree(path: Path, expected: str = "an HDF5 file") -> Iterator[Tree]:
    """Open a file and look at all its links.

    Raises:
        InputError: it is no HDF5 file, or is damaged.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise not_of(path, expected, str(error).splitlines()[0]) from error
    with file:
        tree = Tree(path=path, file=file)
        try:
            _walk(tree)
        except (OSError, RuntimeError, KeyError) as error:
            raise not_of(path, expected, str(error).splitlines()[0]) from error
        yield tree


def described(dataset: "h5py.Dataset") -> SourceArray:
    """A dataset with what it says of itself."""
    labels = tuple(dimension.label for dimension in dataset.dims)
    unit = dataset.attrs.get("units", dataset.attrs.get("unit"))
    unit = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else unit
    return SourceArray(
        values=dataset, axes=labels if labels and all(labels) else None, unit=unit if isinstance(unit, str) else None
    )


def _walk(tree: Tree) -> None:
    """Find all datasets and groups by hard links; soft links are other names of those."""
    import h5py

    soft: dict[str, str] = {}
    seen: set[int] = set()

    def descend(group: "h5py.Group", prefix: str) -> None:
        tree.groups[prefix.rstrip("/")] = group
        for name in group:
            link, path = group.get(name, getlink=True), prefix + name
            if isinstance(link, h5py.ExternalLink):
                tree.refused[path] = f"a link to another file ({link.filename})"
            elif isinstance(link, h5py.SoftLink):
                soft[path] = link.path.strip("/") if link.path.startswith("/") else prefix + link.path
            else:
                _take(tree, group[name], path, descend, seen)

    descend(tree.file, "")
    for path, target in soft.items():
        if target in tree.datasets:
            tree.datasets[path] = tree.datasets[target]
        elif target in tree.refused:
            tree.refused[path] = tree.refused[target]
    _refuse_what_leads_out(tree)


def _take(tree: Tree, node: object, path: str, descend: Callable[["h5py.Group", str], None], seen: set[int]) -> None:
    import h5py

    if isinstance(node, h5py.Dataset):
        tree.datasets[path] = node
    elif isinstance(node, h5py.Group):
        address = h5py.h5o.get_info(node.id).addr
        if address not in seen:
            seen.add(address)
            descend(node, path + "/")


def _refuse_what_leads_out(tree: Tree) -> None:
    """Take out datasets whose values stand in other files: external storage, and virtual ones that point there."""
    for path, dataset in list(tree.datasets.items()):
        if dataset.external:
            names = ", ".join(str(name) for name, _, _ in dataset.external[:3])
            tree.refused[path] = f"stored in another file ({names})"
            del tree.datasets[path]
    virtual = {path: dataset.virtual_sources() for path, dataset in tree.datasets.items() if dataset.is_virtual}
    found = True
    while found:
        found = False
        for path, sources in list(virtual.items()):
            for source in sources:
                here = source.dset_name.strip("/")
                if source.file_name != "." or here not in tree.datasets:
                    where = source.file_name if source.file_name != "." else here
                    tree.refused[path] = f"virtual, put together from another place ({where})"
                    del tree.datasets[path], virtual[path]
                    found = True
                    break

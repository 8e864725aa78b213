"""What a report says of data that a run used and did not make."""

from headrace.pipelines.report.words import quantity, spec_text
from headrace.pipelines.summary import RunSummary, UsedData
from headrace.platform.fields import Mesh, SampleSchema, field_text

_DIGITS = 16  # of a hash, enough to tell data sets apart


def used_data(summary: RunSummary, schema: SampleSchema | None) -> list[tuple[str, str]]:
    """The data that were trained on and scored on, in a few lines; none where the run made its own."""
    sets = summary.data_sets
    if not sets:
        return []
    lines = [("Data", summary.data_folder or summary.recording or "")]
    lines += [(f"Set {role}", _set_text(one)) for role, one in sets.items()]
    if schema is not None:
        lines += _schema_lines(schema)
    # Of all sets together: those of one folder mostly come from one place.
    origins = dict.fromkeys(_origin_text(one) for one in sets.values())
    return [*lines, ("Made by", "; ".join(origins))]


def _set_text(one: UsedData) -> str:
    levels = ", ".join(f"{level} {count}" for level, count in one.levels.items()) if len(one.levels) > 1 else ""
    grid = " x ".join(map(str, one.grid))
    parts = [f"{quantity(one.samples)} samples on {grid} points", levels, f"hash {one.content_hash[:_DIGITS]}"]
    return "; ".join(part for part in parts if part) + f" ({one.path})"


def _schema_lines(schema: SampleSchema) -> list[tuple[str, str]]:
    lines = [
        (name, ", ".join(map(field_text, specs)))
        for name, specs in (("Inputs", schema.inputs), ("Outputs", schema.outputs), ("Parameters", schema.parameters))
        if specs
    ]
    domain = schema.domain
    if isinstance(domain, Mesh):
        lines.append(("Domain", repr(domain)))
    else:
        ends = ["periodic" if wraps else "with ends" for wraps in domain.periodic]
        sides = ", ".join(f"{length:g} {end}" for length, end in zip(domain.extent, ends, strict=True))
        lines.append(("Domain", f"a box of sides {sides}; values at {domain.location}"))
    if len(schema.times) > 1:
        lines.append(("Output times", f"{len(schema.times)} from {schema.times[0]:g} to {schema.times[-1]:g}"))
    return lines


def _origin_text(one: UsedData) -> str:
    if one.problem is not None:
        return f"Headrace, problem {spec_text(one.problem)}"
    if one.imported_from is not None:
        return f"imported from {one.imported_from}" + (f" ({one.format})" if one.format else "")
    return "not known: the data do not say"

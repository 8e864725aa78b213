"""The stored samples: log, layout, writer, reader, manifest, whole trajectories."""

"""From a request to samples: systems, trajectories, programs."""

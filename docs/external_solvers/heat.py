"""Heat conduction in a square, u_t = a (u_xx + u_yy), u = 0 on the boundary, by alternating directions.

The method is that of Peaceman & Rachford, "The numerical solution of parabolic and elliptic differential equations",
J. SIAM 3 (1955): two half steps, each implicit along one axis; second order in space and time. The initial temperature
is a sum of sines with random amplitudes, for which the exact solution is known.
"""

import numpy as np
from headrace_client import finalize, init, send

while run := init():
    diffusivity = run.parameters["diffusivity"]
    (n, m), (h, k) = run.shape, (length / (points - 1) for length, points in zip(run.extent, run.shape, strict=True))
    x, y = np.linspace(0, 1, n)[:, None], np.linspace(0, 1, m)
    amplitudes = np.random.default_rng(run.seed).normal(size=(2, 2))
    u = sum(
        amplitudes[i, j] * np.sin((i + 1) * np.pi * x) * np.sin((j + 1) * np.pi * y) for i in (0, 1) for j in (0, 1)
    )
    send(run, "initial", u)

    along_x = (np.eye(n - 2, k=1) + np.eye(n - 2, k=-1) - 2 * np.eye(n - 2)) / h**2
    along_y = (np.eye(m - 2, k=1) + np.eye(m - 2, k=-1) - 2 * np.eye(m - 2)) / k**2
    inner, time = u[1:-1, 1:-1], 0.0
    for number, output_time in enumerate(run.times):
        num_steps = max(1, round((output_time - time) / 1e-3))
        r = diffusivity * (output_time - time) / num_steps / 2
        left, right = np.linalg.inv(np.eye(n - 2) - r * along_x), np.linalg.inv(np.eye(m - 2) - r * along_y)
        for _ in range(num_steps):
            inner = left @ (inner + r * inner @ along_y)
            inner = (inner + r * along_x @ inner) @ right
        time = output_time
        send(run, "temperature", np.pad(inner, 1), time=number)
    finalize(run)

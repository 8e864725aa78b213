"""Approximate Riemann solvers: the flux between two states, for shallow water and for an ideal gas, batched in torch.

Sources: HLL by Harten, Lax and van Leer (1983) and HLLC by Toro, Spruce and Speares (1994), as in Toro, Riemann Solvers
and Numerical Methods for Fluid Dynamics (3rd ed.), Secs. 10.3 and 10.4. The speeds of the outer waves are the least and
largest of the states' own and of their Roe average (Einfeldt 1988; Batten, Clarke, Lambert and Causon 1997): with them
an isolated shock moves at its own speed, and a first order step keeps density and pressure positive.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

State = Float[Tensor, "batch components *grid"]
Field = Float[Tensor, "batch *grid"]


class AbstractRiemann(ABC):
    """An equation in two sets of variables, and the flux between two states.

    Primitive: a density, the components of velocity, and what else there is. Conserved: the density, the components of
    momentum, and the rest.
    """

    @abstractmethod
    def conserved(self, primitive: State) -> State:
        """Conserved from primitive variables."""

    @abstractmethod
    def primitive(self, conserved: State) -> State:
        """Primitive from conserved variables."""

    @abstractmethod
    def wave_speed(self, primitive: State) -> Field:
        """The speed of waves relative to the flow."""

    @abstractmethod
    def flux(self, left: State, right: State, axis: int) -> State:
        """The flux along an axis through faces with these primitive states on their two sides."""


def _averaged(weight: tuple[Tensor, Tensor], total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return (weight[0] * left).add_(weight[1] * right).div_(total)


def _kinetic(conserved: State, primitive: State) -> Field:
    """½ ρ |u|²."""
    energy = conserved[:, 1] * primitive[:, 1]
    for axis in range(1, conserved.shape[1] - 2):
        energy.add_(conserved[:, 1 + axis] * primitive[:, 1 + axis])
    return energy.mul_(0.5)


@dataclass(frozen=True, kw_only=True)
class WaterRiemann(AbstractRiemann):
    """Shallow water on a flat bottom: depth and velocity; depth and momentum.

    Attributes:
        gravity: "batch *ones" [m/s²].
    """

    gravity: Tensor

    def conserved(self, primitive: State) -> State:
        """H and h u."""
        conserved = primitive.clone()
        conserved[:, 1:].mul_(primitive[:, :1])
        return conserved

    def primitive(self, conserved: State) -> State:
        """H and u."""
        primitive = conserved.clone()
        primitive[:, 1:].div_(conserved[:, :1])
        return primitive

    def wave_speed(self, primitive: State) -> Field:
        """√(g h)."""
        return (self.gravity * primitive[:, 0]).sqrt_()

    def flux(self, left: State, right: State, axis: int) -> State:
        """HLL for depth and normal momentum (Toro, Eqs. 10.20 and 10.21), and a shear wave that moves with the flow.

        In one dimension there are two waves, and HLL has both. The third one of two dimensions changes nothing but the
        tangential velocity: what crosses the face carries the velocity of the side that it comes from.
        """
        h_l, *v_l = left.unbind(1)
        h_r, *v_r = right.unbind(1)
        u_l, u_r = v_l[axis], v_r[axis]
        gh_l, gh_r = self.gravity * h_l, self.gravity * h_r
        weight = h_l.sqrt(), h_r.sqrt()
        mean_u = _averaged(weight, weight[0] + weight[1], u_l, u_r)
        mean_c = (gh_l + gh_r).mul_(0.5).sqrt_()
        s_l = torch.minimum(u_l - gh_l.sqrt(), mean_u - mean_c).clamp_max_(0.0)
        s_r = torch.maximum(u_r + gh_r.sqrt(), mean_u + mean_c).clamp_min_(0.0)
        both, span = s_l * s_r, s_r - s_l
        q_l, q_r = h_l * u_l, h_r * u_r

        def hll(flux_l: Tensor, flux_r: Tensor, jump: Tensor) -> Tensor:
            return (s_r * flux_l).sub_(s_l * flux_r).add_(jump.mul_(both)).div_(span)

        flux = torch.empty_like(left)
        mass = hll(q_l, q_r, h_r - h_l)
        flux[:, 0] = mass
        flux[:, 1 + axis] = hll(
            (q_l * u_l).add_((gh_l * h_l).mul_(0.5)), (q_r * u_r).add_((gh_r * h_r).mul_(0.5)), q_r - q_l
        )
        for other in range(len(v_l)):
            if other != axis:
                torch.mul(mass, torch.where(mass >= 0.0, v_l[other], v_r[other]), out=flux[:, 1 + other])
        return flux


@dataclass(frozen=True, kw_only=True)
class GasRiemann(AbstractRiemann):
    """An ideal gas: density, velocity and pressure; density, momentum and energy E = p / (γ - 1) + ½ ρ |u|².

    Attributes:
        gamma: "batch *ones", above 1.
    """

    gamma: Tensor

    def conserved(self, primitive: State) -> State:
        """ρ, ρ u and E."""
        conserved = primitive.clone()
        conserved[:, 1:-1].mul_(primitive[:, :1])
        conserved[:, -1].div_(self.gamma - 1.0).add_(_kinetic(conserved, primitive))
        return conserved

    def primitive(self, conserved: State) -> State:
        """ρ, u and p."""
        primitive = conserved.clone()
        primitive[:, 1:-1].div_(conserved[:, :1])
        primitive[:, -1].sub_(_kinetic(conserved, primitive)).mul_(self.gamma - 1.0)
        return primitive

    def wave_speed(self, primitive: State) -> Field:
        """√(γ p / ρ)."""
        return (self.gamma * primitive[:, -1]).div_(primitive[:, 0]).sqrt_()

    def flux(self, left: State, right: State, axis: int) -> State:
        """HLLC (Toro, Sec. 10.4, Eqs. 10.37 and 10.39).

        Between an outer wave of speed S and the contact of speed S*, density, pressure and energy are those that the
        jump conditions across the outer wave leave: with m = ρ (S - u), ρ* = m / (S - S*), p* = p + m (S* - u), and
        E* = (E (S - u) - p u + p* S*) / (S - S*). The flux is that of this state, of velocity S*. Where all waves go
        one way, S* gives way to the velocity of the side that they come from, and ρ*, p* and E* are that side's.
        """
        rho_l, *v_l, p_l = left.unbind(1)
        rho_r, *v_r, p_r = right.unbind(1)
        u_l, u_r = v_l[axis], v_r[axis]
        square_l, square_r = (self.gamma * p_l).div_(rho_l), (self.gamma * p_r).div_(rho_r)
        weight = rho_l.sqrt(), rho_r.sqrt()
        total = weight[0] + weight[1]
        mean_u = _averaged(weight, total, u_l, u_r)
        jump = torch.zeros_like(mean_u)
        for a, b in zip(v_l, v_r, strict=True):
            difference = b - a
            jump.add_(difference.mul_(difference))
        share = (weight[0] * weight[1]).mul_(0.5 * (self.gamma - 1.0)).div_(total * total)
        mean_c = _averaged(weight, total, square_l, square_r).add_(share.mul_(jump)).sqrt_()
        s_l = torch.minimum(u_l - square_l.sqrt_(), mean_u - mean_c)
        s_r = torch.maximum(u_r + square_r.sqrt_(), mean_u + mean_c)
        m_l, m_r = (s_l - u_l).mul_(rho_l), (s_r - u_r).mul_(rho_r)
        contact = (p_r - p_l).add_(m_l * u_l).sub_(m_r * u_r).div_(m_l - m_r)

        is_left = contact >= 0.0
        rho, *v, p = torch.where(is_left.unsqueeze(1), left, right).unbind(1)
        u, s = v[axis], torch.where(is_left, s_l, s_r)
        away = s - u
        m = rho * away
        is_one_way = (s_l >= 0.0).logical_or_(s_r <= 0.0)
        normal = torch.where(is_one_way, u, contact)
        gap = s - normal
        p_star = (normal - u).mul_(m).add_(p)
        flux = torch.empty_like(left)
        mass = m.div_(gap).mul_(normal)
        flux[:, 0] = mass
        flux[:, 1 + axis] = (mass * normal).add_(p_star)
        kinetic = u * u
        for other in range(len(v)):
            if other != axis:
                torch.mul(mass, v[other], out=flux[:, 1 + other])
                kinetic.add_(v[other] * v[other])
        energy = kinetic.mul_(rho).mul_(0.5).add_(p / (self.gamma - 1.0))
        work = p_star * normal
        flux[:, -1] = energy.mul_(away).sub_(p.mul_(u)).add_(work).div_(gap).add_(p_star).mul_(normal)
        return flux

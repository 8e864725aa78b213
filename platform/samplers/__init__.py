"""Who decides what each sample shall be: one sampler a file; a new one is one file and one entry of a tuple."""

from headrace.platform.samplers.fixed_mix import FixedMix
from headrace.platform.samplers.loss_weighted import LossWeighted
from headrace.platform.samplers.sampler import AbstractSampler
from headrace.platform.spec import one_of

SAMPLERS: tuple[type[AbstractSampler], ...] = (FixedMix, LossWeighted)
AnySampler = one_of("headrace.samplers", SAMPLERS)

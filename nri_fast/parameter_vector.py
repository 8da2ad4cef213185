"""All weights of a module library in one tensor: a gradient step takes few operations, however many layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nri_fast.modules import ModuleLibrary, linear_layers


@dataclass(frozen=True)
class _Place:
    """A layer's weight in the vector, and what the kernels see in its place."""

    first: int
    shape: torch.Size
    factor: str  # "pair": times the map of relative coordinates; "own": entity's columns; "scale": rows of the output


class ParameterVector:
    """A library's weights, laid out as the kernels read them, and the way of a gradient back.

    The library's modules keep working: their parameters become views of the vector, so that what changes it changes
    them. :meth:`kernel` equals :meth:`ModuleLibrary.flat_parameters` to the bit; autograd is not needed, because what
    stands between the weights and the kernels is linear.

    Parameters
    ----------
    library : ModuleLibrary
        The modules, on the device where they stay.

    Attributes
    ----------
    weights : Parameter
        [P] all of them: what an optimiser is given.
    """

    def __init__(self, library: ModuleLibrary) -> None:
        self._library = library
        layers = [linear_layers(module) for module in (*library.edge, *library.node)]
        parameters = [value for module in layers for layer in module for value in (layer.weight, layer.bias)]
        self.weights = nn.Parameter(torch.cat([value.detach().flatten() for value in parameters]))
        places, first = {}, 0
        for value in parameters:
            view = self.weights.data[first : first + value.numel()].view(value.shape)
            value.data = view
            places[value] = first
            first += value.numel()
        self._places: list[_Place] = []
        for module in layers[: len(library.edge)]:
            if library.relative:
                self._add(places, module[0].weight, "pair")
        for module in layers[len(library.edge) :]:
            if library.relative:
                self._add(places, module[0].weight, "own")
            self._add(places, module[-1].weight, "scale")
            self._add(places, module[-1].bias, "scale")

    def _add(self, places: dict[Tensor, int], value: Tensor, factor: str) -> None:
        self._places.append(_Place(places[value], value.shape, factor))

    def kernel(self) -> Tensor:
        """[P] what the kernels read, without a gradient."""
        seen = self.weights.detach().clone()
        for place in self._places:
            part = seen[place.first : place.first + place.shape.numel()].view(place.shape)
            if place.factor == "pair":
                part.copy_(part @ self._library._pair)
            else:
                part.mul_(self._factor(place))
        return seen

    def take_gradient(self, gradient: Tensor) -> None:
        """Turns the gradient [P] in what the kernels read into the weights' own, in place, and leaves it to them."""
        for place in reversed(self._places):
            part = gradient[place.first : place.first + place.shape.numel()].view(place.shape)
            if place.factor == "pair":
                part.copy_(part @ self._library._pair.mT)
            else:
                part.mul_(self._factor(place))
        self.weights.grad = gradient

    def _factor(self, place: _Place) -> Tensor:
        if place.factor == "own":
            return self._library._own
        scale = self._library.change_scale
        return scale if len(place.shape) == 1 else scale[:, None]
